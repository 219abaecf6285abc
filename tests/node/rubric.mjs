// Evaluates the expressions of a conformance rubric, as published by the C2PA conformance programme, on crJSON documents.
// Standard input: {rubric: {variables, expressions, checks}, documents}. Standard output: per document, what held by id:
// true, false, or the message of an error.
import { readFileSync } from "node:fs";
import JsonFormula, { dataTypes } from "@adobe/json-formula";

const { rubric, documents } = JSON.parse(readFileSync(0, "utf8"));
const globals = { ...rubric.variables, $args: [] };
const names = Object.keys(globals);

// A named expression is a function of the language: what it is called with is $args, @ stays as it is.
const compiled = {};
const functions = {};
for (const [name, body] of Object.entries(rubric.expressions)) {
  const takesArgument = body.includes("$args");
  functions[name] = {
    _signature: takesArgument ? [{ types: [dataTypes.TYPE_ANY] }] : [],
    _func: (given, data, interpreter) => {
      const before = interpreter.globals.$args;
      if (takesArgument) interpreter.globals.$args = given;
      try {
        return interpreter.search(compiled[name], data);
      } finally {
        interpreter.globals.$args = before;
      }
    },
  };
}
const engine = new JsonFormula(functions);
for (const [name, body] of Object.entries(rubric.expressions)) compiled[name] = engine.compile(body.trim(), names);
const checks = rubric.checks.map((check) => ({ ...check, tree: engine.compile(check.expression.trim(), names) }));

function holds({ failIfMatched, warnIfMatched }, value) {
  const matched = Array.isArray(value) && value.length > 0;
  if (failIfMatched || warnIfMatched) return !matched;
  if (Array.isArray(value)) return matched;
  return typeof value === "number" ? value > 0 : value !== false && value !== null && value !== undefined;
}

const judge = (check, document) => {
  try {
    return holds(check, engine.run(check.tree, document, "en-US", { ...globals }));
  } catch (error) {
    return String(error.message);
  }
};
const found = documents.map((document) => Object.fromEntries(checks.map((c) => [c.id, judge(c, document)])));
process.stdout.write(JSON.stringify(found));
