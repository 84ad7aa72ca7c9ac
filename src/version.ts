// The product's version, from package.json: beside the compiled sources, or in the directory of an installed package.

import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";

const packageFile = z.object({ name: z.literal("tandem"), version: z.string() });

function read(): string {
  let directory = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(directory, "package.json"))) {
    const parent = path.dirname(directory);
    if (parent === directory) throw new Error("package.json is missing from this installation");
    directory = parent;
  }
  return packageFile.parse(JSON.parse(readFileSync(path.join(directory, "package.json"), "utf8"))).version;
}

export const productVersion = read();
