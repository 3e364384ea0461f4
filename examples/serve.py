"""Serve a bundle with FastAPI, without PyTorch: requests that come together share a run.

    python examples/save_bundle.py build/minilm    # once, with PyTorch
    python examples/serve.py build/minilm          # needs: pip install fastapi uvicorn tokenizers
    curl localhost:8000/embed --json '{"text": "how long does my code take to run?"}'

A request waits a few milliseconds for others; their texts are padded to one array, and each gets
its row of the result. What the bundle's guards refuse is answered with 422 and the reason; when
too many requests wait, further ones are turned away at once, with 503.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from tokenizers import Tokenizer

from dynamo_onnx import BundleError
from dynamo_onnx.runtime import Bundle, load

TokenIds = list[int]


@dataclass(slots=True)
class Stats:
    """Counts since the start: what was asked, how often the bundle ran, and the largest batch."""

    requests: int = 0
    runs: int = 0
    largest: int = 0
    turned_away: int = 0


@dataclass(slots=True)
class Batcher:
    """Answers requests together: at most `most` texts a run, which wait `wait_s` for each other."""

    bundle: Bundle
    waiting: asyncio.Queue[tuple[TokenIds, asyncio.Future[npt.NDArray[np.float32]]]]
    most: int
    wait_s: float
    stats: Stats = field(default_factory=Stats)

    async def answer(self, ids: TokenIds) -> npt.NDArray[np.float32]:
        """The row of one text; QueueFull, or the BundleError of what the guards refuse."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((ids, future))
        self.stats.requests += 1
        return await future

    async def work(self) -> None:
        """Run batch after batch, until cancelled."""
        while True:
            batch = [await self.waiting.get()]
            await asyncio.sleep(self.wait_s)
            while len(batch) < self.most and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            texts = [ids for ids, _ in batch]
            for (_, future), row in zip(batch, await self._rows(texts), strict=True):
                if future.cancelled():  # nobody waits for it any more
                    continue
                if isinstance(row, Exception):
                    future.set_exception(row)
                else:
                    future.set_result(row)

    async def _rows(self, texts: Sequence[TokenIds]) -> Sequence[np.ndarray | Exception]:
        self.stats.runs += 1
        self.stats.largest = max(self.stats.largest, len(texts))
        try:  # in a thread, so that further requests are taken in meanwhile
            return list(await asyncio.to_thread(embed, self.bundle, texts))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer to these texts
            if len(texts) == 1 or not isinstance(error, BundleError):
                return [error] * len(texts)
        return [(await self._rows([ids]))[0] for ids in texts]  # who is to blame?


def embed(bundle: Bundle, texts: Sequence[TokenIds]) -> npt.NDArray[np.float32]:
    """A unit vector for each text, [B, 384], by one call."""
    input_ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(input_ids)
    for row, ids in enumerate(texts):
        input_ids[row, : len(ids)] = ids
        mask[row, : len(ids)] = 1
    return bundle(input_ids=input_ids, attention_mask=mask)


class Text(BaseModel):
    """What is asked."""

    text: str


def app_of(folder: Path, *, most: int, wait_s: float, waiting: int) -> FastAPI:
    """The app over `model.onnxbundle` and `tokenizer.json` in a folder."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bundle = load(folder / "model.onnxbundle")
    bundle.load_all()  # now, rather than at somebody's request
    batcher = Batcher(bundle, asyncio.Queue(waiting), most, wait_s)

    @contextlib.asynccontextmanager
    async def working(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(batcher.work())
        yield
        work.cancel()

    app = FastAPI(title="Sentence embeddings", lifespan=working)

    @app.post("/embed")
    async def embedding(asked: Text) -> dict[str, list[float]]:
        row = await batcher.answer(tokenizer.encode(asked.text).ids)
        return {"embedding": row.tolist()}

    @app.get("/stats")
    async def stats() -> dict[str, object]:
        return {**asdict(batcher.stats), "torch_is_imported": "torch" in sys.modules}

    @app.exception_handler(BundleError)
    async def refused(_: Request, error: BundleError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.exception_handler(asyncio.QueueFull)
    async def too_many(_: Request, __: asyncio.QueueFull) -> JSONResponse:
        batcher.stats.turned_away += 1
        told = {"detail": f"{waiting} requests are waiting already: try again later"}
        return JSONResponse(told, status_code=503, headers={"Retry-After": "1"})

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="as save_bundle.py writes it")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--most", type=int, default=32, help="texts a run")
    parser.add_argument("--wait-ms", type=float, default=5, help="for other requests to come")
    parser.add_argument("--waiting", type=int, default=256, help="requests, before 503")
    asked = parser.parse_args()
    app = app_of(asked.folder, most=asked.most, wait_s=asked.wait_ms / 1e3, waiting=asked.waiting)
    uvicorn.run(app, port=asked.port, log_level="warning")


if __name__ == "__main__":
    main()
