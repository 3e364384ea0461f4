// Programs of a bundle in a browser: as it is on the server, with onnxruntime-web.

import * as ort from "onnxruntime-web/wasm";

/** Open the program of this name; `feeds` are int64 arrays, given as {data, dims}. */
export async function open(url, program) {
  const manifest = await (await fetch(`${url}/manifest.json`)).json();
  if (manifest.format !== "dynamo_onnx bundle 1") throw new Error(`${url} is no bundle`);
  const entry = manifest.programs.find(({ file }) => file.name === program);
  if (!entry) throw new Error(`${url} has no program ${program}`);
  const [model, weights] = await Promise.all([
    checked(url, entry.file),
    checked(url, manifest.weights),
  ]);
  const session = await ort.InferenceSession.create(model, {
    executionProviders: ["wasm"],
    externalData: [{ path: manifest.weights.name, data: weights }],
  });
  return async (feeds) => {
    const values = {};
    for (const { name, dtype } of entry.inputs) {
      values[name] = new ort.Tensor(dtype, feeds[name].data, feeds[name].dims);
    }
    const results = await session.run(values);
    return entry.outputs.map(({ name }) => results[name]);
  };
}

/** The bytes of a file of the bundle, which must be those of the manifest. */
async function checked(url, { name, size, sha256 }) {
  const response = await fetch(`${url}/${name}`);
  if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
  const bytes = await response.arrayBuffer();
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const found = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (bytes.byteLength !== size || found !== sha256) {
    throw new Error(`${name} is not the file that was saved`);
  }
  return new Uint8Array(bytes);
}
