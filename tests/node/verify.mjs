// Validates files with c2pa-wasm, offline. Standard input: {anchors, usages, files: [{path, format}]}.
// Standard output: a list of {state, failures, codes} in the same order, or {error}.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { initSync, WasmReader } from "@contentauth/c2pa-wasm";

const refuse = () => {
  throw new Error("verification must not use the network");
};
globalThis.fetch = refuse;

const { anchors, usages, files } = JSON.parse(readFileSync(0, "utf8"));
const settings = JSON.stringify({
  version: 1,
  verify: { remote_manifest_fetch: false, ocsp_fetch: false },
  core: { allowed_network_hosts: [] },
  trust: { trust_anchors: anchors, trust_config: usages },
});
initSync({ module: readFileSync(createRequire(import.meta.url).resolve("@contentauth/c2pa-wasm/c2pa.wasm")) });

const found = [];
for (const { path, format } of files) {
  try {
    const reader = await WasmReader.fromBytes(format, new Uint8Array(readFileSync(path)), settings);
    const store = JSON.parse(reader.json());
    const { success, informational, failure } = store.validation_results.activeManifest;
    const names = (entries) => entries.map(({ code }) => code);
    found.push({
      state: store.validation_state,
      failures: names(failure),
      codes: names([...success, ...informational]),
    });
    reader.free();
  } catch (error) {
    found.push({ error: String(error) });
  }
}
process.stdout.write(JSON.stringify(found));
