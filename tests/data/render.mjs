// Renders chat templates with npm's @huggingface/jinja: FILE holds [{template, values}], the texts are printed as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.TOOLKIT_NODE_MODULES}/`);
const { Template } = require("@huggingface/jinja");
const cases = JSON.parse(readFileSync(process.argv[2], "utf8"));
console.log(JSON.stringify(cases.map(({ template, values }) => new Template(template).render(values))));
