// Lints the scripts of the report's page: `make lint`, with npx's ESLint and nothing installed here.

import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const PAGE = "lerobot_topreward/report/page";
// The recommended rules come with the ESLint that is running.
const js = createRequire(realpathSync(process.argv[1]))("@eslint/js");

// `report/page.py` puts all scripts into one function, so each sees what the others declare.
const scripts = readdirSync(join(import.meta.dirname, PAGE)).filter((name) => name.endsWith(".js"));
const code = scripts.map((name) => readFileSync(join(import.meta.dirname, PAGE, name), "utf8")).join("\n");
const declared = [...code.matchAll(/^(?:async )?(?:function|const|let) ([\w$]+)/gm)].map((match) => match[1]);
const unused = declared.filter((name) => code.split(new RegExp(`(?<![\\w$])${name.replaceAll("$", "\\$")}(?![\\w$])`)).length < 3);
if (unused.length) throw new Error(`${PAGE}: nothing uses ${unused.join(", ")}`);

const browser = [
  "Blob", "Image", "ResizeObserver", "URL", "URLSearchParams", "document", "localStorage", "location",
  "requestAnimationFrame", "setTimeout", "window",
];

export default [
  {
    files: [`${PAGE}/*.js`],
    languageOptions: {
      ecmaVersion: 2022,
      sourceType: "script",
      globals: Object.fromEntries([...browser, ...declared].map((name) => [name, "writable"])),
    },
    rules: {
      ...js.configs.recommended.rules,
      "no-redeclare": ["error", { builtinGlobals: false }],
      "no-unused-vars": ["error", { vars: "local", args: "all", caughtErrors: "all" }],
      "consistent-return": "error",
      "eqeqeq": "error",
      "no-implicit-globals": "off",
      "no-shadow": ["error", { builtinGlobals: false, hoist: "all" }],
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-restricted-properties": ["error",
        { property: "innerHTML", message: "Text of a dataset must stay text: see dom.js." },
        { property: "outerHTML", message: "Text of a dataset must stay text: see dom.js." },
        { property: "insertAdjacentHTML", message: "Text of a dataset must stay text: see dom.js." },
      ],
      "no-sequences": "error",
      "no-unused-expressions": ["error", { allowShortCircuit: true }],
      "no-var": "error",
      "prefer-const": ["error", { destructuring: "all" }],
    },
  },
];
