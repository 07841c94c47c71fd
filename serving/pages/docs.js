// The OpenAPI document as a page: what each route takes and answers, and a form to ask it. Text is never taken for HTML.
"use strict";

function element(name, attributes = {}, ...inside) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...inside);
  return made;
}

let schemas = {};

function resolved(schema) {
  return schema && schema.$ref ? schemas[schema.$ref.split("/").pop()] : schema || {};
}

// A schema in a line or some: {horizon: string, rows: [FactorRow…]}.
function typeOf(schema) {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  const either = schema.anyOf || schema.oneOf;
  if (either) return either.map(typeOf).join(" | ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return `[${typeOf(schema.items)}…]`;
  if (schema.type === "object" && schema.additionalProperties) return `{…: ${typeOf(schema.additionalProperties)}}`;
  return Array.isArray(schema.type) ? schema.type.join(" | ") : schema.format || schema.type || "any";
}

function fields(schema) {
  const properties = Object.entries(resolved(schema).properties || {});
  if (!properties.length) return element("p", {}, typeOf(schema));
  const required = new Set(resolved(schema).required || []);
  const rows = properties.map(([name, one]) => element("tr", {},
    element("td", {}, element("code", {}, name), required.has(name) ? "" : " (optional)"),
    element("td", {}, element("code", {}, typeOf(one))),
    element("td", {}, one.description || "")));
  return element("table", {}, ...rows);
}

// Every message that a schema speaks of, once, in the order in which it does.
function messages(schema, found = new Map()) {
  if (!schema || typeof schema !== "object") return found;
  if (schema.$ref) {
    const name = schema.$ref.split("/").pop();
    if (!found.has(name)) messages(found.set(name, schemas[name]) && schemas[name], found);
  } else {
    Object.values(schema).forEach((one) => messages(one, found));
  }
  return found;
}

function described(schema) {
  const named = [...messages(schema)];
  if (!named.length) return [element("p", {}, element("code", {}, typeOf(schema)))];
  return named.flatMap(([name, one]) => [
    element("p", {}, element("code", {}, name), one.description ? `: ${one.description}` : ""), fields(one)]);
}

function exampleOf(content) {
  if (content.example !== undefined) return content.example;
  const either = content.schema.anyOf || content.schema.oneOf || [content.schema];
  for (const one of either) {
    const examples = resolved(one).examples;
    if (examples) return examples[0];
  }
  return {};
}

function form(method, path, operation) {
  const inputs = (operation.parameters || []).map((one) => {
    const input = element("input", { name: one.name, placeholder: typeOf(one.schema) });
    const needed = one.required ? "" : " (optional)";
    return { one, input, row: element("tr", {},
      element("td", {}, element("code", {}, one.name), needed), element("td", {}, input),
      element("td", {}, one.description || "")) };
  });
  const content = operation.requestBody && operation.requestBody.content["application/json"];
  const body = content && element("textarea", { value: JSON.stringify(exampleOf(content), null, 2), spellcheck: false });
  const answer = element("pre", { hidden: true, className: "answer" });
  const button = element("button", { type: "button" }, "ask");
  button.onclick = async () => {
    let target = path.slice(1);
    const query = new URLSearchParams();
    for (const { one, input } of inputs) {
      if (one.in === "path") target = target.replace(`{${one.name}}`, encodeURIComponent(input.value));
      else if (input.value) input.value.split(",").forEach((part) => query.append(one.name, part.trim()));
    }
    const headers = body ? { "content-type": "application/json" } : {};
    const key = document.getElementById("key").value;
    if (key) headers.authorization = `Bearer ${key}`;
    answer.hidden = false;
    answer.textContent = "…";
    try {
      const began = performance.now();
      const asked = { method: method.toUpperCase(), headers, body: body ? body.value : undefined };
      const reply = await fetch(`${target}${query.size ? `?${query}` : ""}`, asked);
      const text = await reply.text();
      const shown = (reply.headers.get("content-type") || "").includes("json")
        ? JSON.stringify(JSON.parse(text), null, 2) : text;
      answer.textContent = `${reply.status} in ${(performance.now() - began).toFixed(1)} ms\n${shown}`;
    } catch (error) {
      answer.textContent = `no answer: ${error}`;
    }
  };
  return [inputs.length ? element("table", {}, ...inputs.map(({ row }) => row)) : "",
    body || "", element("p", {}, button), answer];
}

function route(path, method, operation) {
  const role = operation["x-role"];
  const box = element("details", { id: `${method}-${path}` }, element("summary", {},
    element("b", {}, method.toUpperCase()), element("span", { className: "path" }, path),
    element("small", {}, `${operation.summary}${role ? ` · ${role}` : ""}`)));
  box.addEventListener("toggle", () => {
    if (box.dataset.made) return;
    box.dataset.made = "yes";
    box.append(...(operation.description || "").split("\n\n").map((text) => element("p", {}, text)),
      ...form(method, path, operation));
    const content = operation.requestBody && operation.requestBody.content["application/json"];
    if (content) box.append(element("h2", {}, "Takes"), ...described(content.schema));
    box.append(element("h2", {}, "Answers"));
    for (const [status, told] of Object.entries(operation.responses)) {
      const schema = told.content && Object.values(told.content)[0].schema;
      box.append(element("p", {}, element("b", {}, status), ` ${told.description}`));
      if (schema && status < 300) box.append(...described(schema));
    }
  });
  return box;
}

async function main() {
  const spec = await (await fetch("openapi.json")).json();
  schemas = spec.components.schemas;
  document.getElementById("about").textContent = spec.info.description;
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      groups.set(tag, [...(groups.get(tag) || []), route(path, method, operation)]);
    }
  }
  for (const [tag, boxes] of groups) {
    document.getElementById("tags").append(element("a", { href: `#${tag}` }, tag));
    document.getElementById("routes").append(element("h2", { id: tag }, tag), ...boxes);
  }
  document.body.dataset.ready = "yes";
}

main();
