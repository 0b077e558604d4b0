"use strict";
// The page: sliders, four figures, and a table of the same in numbers.

const AGES = 30000, STEPS = 10000, BEFORE = 2000, AFTER = 4000;
const SHOWN = ["ademamix", "lion", "qhm", "qhadam", "aggmo", "adamw"];
const $ = (selector) => document.querySelector(selector);
const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
};
const draw = (tag, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
};

const shown = new Set(SHOWN);
const unfolded = new Set(innerWidth > 1000 ? [SHOWN[0]] : []); // cards, which stay so when another rule comes
const settings = {}; // rule -> its hyperparameters
const begin = (name) => {
    settings[name] = Object.fromEntries(RULES[name].hyper.map((one) => [one.name, structuredClone(one.value)]));
};
Object.keys(RULES).forEach(begin);
let landscape = "rosenbrock", steps = 600;

// --- sliders ------------------------------------------------------------------------------------------------------------------

const short = (x) => (x === 0 ? "0" : Math.abs(x) < 1e-3 || Math.abs(x) >= 1e5 ? Number(x.toPrecision(3)).toExponential().replace("e+", "e") : String(Number(x.toPrecision(6))));
const KINDS = { // from a slider in [0, 1] to a value, back, and as text
    decay: [(s) => Number((1 - 10 ** (-5 * s)).toPrecision(6)), (x) => -Math.log10(1 - x) / 5, (x) => short(x)],
    log: [(s) => Number((10 ** (5 * s - 5)).toPrecision(3)), (x) => (Math.log10(Math.max(x, 1e-5)) + 5) / 5, short],
    guard: [(s) => (s === 0 ? 0 : Number((10 ** (12 * s - 12)).toPrecision(2))), (x) => (x === 0 ? 0 : (Math.log10(x) + 12) / 12), short],
    unit: [(s) => Number(s.toFixed(3)), (x) => x, short],
    real: [(s) => Number((2 * s - 0.5).toFixed(3)), (x) => (x + 0.5) / 2, short],
    gain: [(s) => Number((20 * s).toFixed(1)), (x) => x / 20, short],
    steps: [(s) => (s === 0 ? null : Math.round(10 ** (5 * s))), (x) => (x ? Math.log10(x) / 5 : 0), (x) => (x ? x.toLocaleString("en") : "off")],
};

function slider(name, one, index) {
    const [toValue, toSlider, text] = KINDS[one.kind];
    const get = () => (index === null ? settings[name][one.name] : settings[name][one.name][index]);
    const id = `${name}-${one.name}${index === null ? "" : `-${index}`}`;
    const output = make("output", { for: id });
    const input = make("input", { type: "range", id, min: 0, max: 1, step: 0.002, title: one.meaning });
    const say = () => {
        const memory = one.kind === "decay" && get() < 1 ? `${Math.round(1 / (1 - get())).toLocaleString("en")} steps` : "";
        output.textContent = text(get());
        if (memory) output.append(make("small", {}, memory));
        input.setAttribute("aria-valuetext", `${text(get())} ${memory}`);
    };
    input.value = toSlider(get());
    input.addEventListener("input", () => {
        const value = toValue(Number(input.value));
        if (index === null) settings[name][one.name] = value;
        else settings[name][one.name][index] = value;
        say();
        refresh();
    });
    say();
    const label = make("label", { for: id }, one.name + (index === null ? "" : `[${index}]`));
    return make("div", { class: "slider" }, label, output, input);
}

function card(name) {
    const rule = RULES[name];
    const box = make("details", { style: `--own: var(--${name}, var(--ink))` });
    box.open = unfolded.has(name);
    box.addEventListener("toggle", () => { if (box.open) unfolded.add(name); else unfolded.delete(name); });
    const rows = rule.hyper.flatMap((one) =>
        Array.isArray(settings[name][one.name]) ? settings[name][one.name].map((_, i) => slider(name, one, i)) : [slider(name, one, null)]);
    const reset = make("button", { type: "button", class: "reset" }, "Defaults");
    reset.addEventListener("click", () => {
        begin(name);
        const next = card(name);
        box.replaceWith(next);
        next.querySelector(".reset").focus();
        refresh();
    });
    box.append(make("summary", {}, make("i", {}), rule.title), make("p", {}, rule.says), ...rows, reset);
    return box;
}

function controls() {
    for (const name of Object.keys(RULES)) {
        const chip = make("button", { type: "button", "aria-pressed": shown.has(name), style: `--own: var(--${name}, var(--ink))` }, RULES[name].title);
        chip.addEventListener("click", () => {
            if (shown.has(name)) shown.delete(name);
            else shown.add(name);
            chip.setAttribute("aria-pressed", shown.has(name));
            cards();
            refresh();
        });
        $("#chips").append(chip);
    }
    for (const radio of document.querySelectorAll("[name=landscape]")) {
        radio.addEventListener("change", () => { landscape = radio.value; refresh(); });
    }
    $("#steps").addEventListener("input", (event) => { steps = Number(event.target.value); refresh(); });
    cards();
}
const inOrder = () => Object.keys(RULES).filter((name) => shown.has(name));
const cards = () => $("#cards").replaceChildren(...[...SHOWN, ...inOrder()].filter((name, i, all) => shown.has(name) && all.indexOf(name) === i).map(card));

// --- figures ------------------------------------------------------------------------------------------------------------------

const known = new Map();
function computed(name) {
    const key = name + JSON.stringify(settings[name]);
    if (!known.has(key)) {
        if (known.size > 60) known.clear();
        const rule = RULES[name], hyper = settings[name];
        known.set(key, {
            weights: weightsByAge(rule, hyper, AGES),
            rate: effectiveRate(rule, hyper, STEPS),
            turn: reversal(rule, hyper, BEFORE, AFTER),
        });
    }
    return known.get(key);
}

/** Indices from 0 to count - 1, evenly spread on a log scale of index + 1. */
function spread(count, points = 260) {
    const found = new Set();
    for (let k = 0; k <= points; k++) found.add(Math.round(count ** (k / points)) - 1);
    return [...found];
}

const decade = (x) => (x >= 1 && x < 1e5 ? x.toLocaleString("en") : x === 0.1 || x === 0.01 ? String(x) : `10${String(Math.round(Math.log10(x))).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻")}`);
function ticks(axis) {
    const [low, high] = axis.domain;
    if (axis.log) {
        const found = [], every = Math.ceil((Math.log10(high) - Math.log10(low)) / 6);
        for (let k = Math.ceil(Math.log10(low) - 1e-9); k <= Math.log10(high) + 1e-9; k += every) found.push([10 ** k, decade(10 ** k)]);
        return found;
    }
    const rough = (high - low) / 5, power = 10 ** Math.floor(Math.log10(rough)), step = [1, 2, 5, 10].find((m) => m * power >= rough) * power;
    const found = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) found.push([k * step, String(Number((k * step).toPrecision(6)))]);
    return found;
}

function figure(svg, { x, y, series, zero }) {
    const width = svg.parentElement.clientWidth - 2, height = Math.max(230, Math.min(320, width * 0.62));
    const left = 46, right = 14, top = 10, bottom = 40;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const place = (axis, from, to) => {
        const f = axis.log ? Math.log10 : (v) => v, [a, b] = axis.domain.map(f);
        return (v) => from + ((f(v) - a) / (b - a)) * (to - from);
    };
    const px = place(x, left, width - right), py = place(y, height - bottom, top);
    const parts = [];
    const clip = `clip-${svg.id}`;
    parts.push(draw("clipPath", { id: clip }));
    parts[0].append(draw("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom }));
    for (const [v, text] of ticks(y)) {
        parts.push(draw("line", { class: v === 0 && zero ? "zero" : "grid", x1: left, x2: width - right, y1: py(v), y2: py(v) }));
        parts.push(draw("text", { x: left - 7, y: py(v) + 4, "text-anchor": "end" }, text));
    }
    for (const [v, text] of ticks(x)) {
        parts.push(draw("line", { class: "tick", x1: px(v), x2: px(v), y1: height - bottom, y2: height - bottom + 4 }));
        parts.push(draw("text", { x: px(v), y: height - bottom + 17, "text-anchor": px(v) > width - right - 16 ? "end" : "middle" }, text));
    }
    parts.push(draw("line", { class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
    parts.push(draw("text", { class: "label", x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, x.label));
    const lines = [];
    for (const { name, points } of series) {
        const usable = points.filter(([, v]) => Number.isFinite(v) && (!y.log || v > 0));
        const path = usable.map(([u, v], i) => `${i ? "L" : "M"}${px(u).toFixed(1)} ${py(v).toFixed(1)}`).join("");
        const line = draw("path", { class: "line", d: path, style: `stroke: var(--${name}, var(--ink))`, "clip-path": `url(#${clip})` });
        line.append(draw("title", {}, RULES[name].title));
        parts.push(line);
        const inside = usable.map(([u, v]) => [px(u), py(v)]).filter(([u, v]) => u > left + 30 && u < width - right - 30 && v > top + 12 && v < height - bottom - 8);
        lines.push({ name, inside: inside.filter((_, i) => i % 5 === 0) });
    }
    const labels = [];
    for (const { name, inside } of lines) { // each where the other lines, and the labels that stand, are farthest
        const others = lines.flatMap((line) => (line.name === name ? [] : line.inside));
        const room = ([u, v]) => Math.min(60, ...others.map(([a, b]) => Math.hypot((a - u) / 2, b - (v - 9))), ...labels.map(([a, b]) => Math.hypot((a - u) / 8, b - v)));
        const best = inside.reduce((found, at) => (found && room(found) >= room(at) ? found : at), null);
        if (!best) continue;
        labels.push(best);
        parts.push(draw("text", { class: "name", x: best[0], y: best[1] - 6, "text-anchor": "middle", style: `fill: var(--${name}, var(--ink))` }, RULES[name].title));
    }
    svg.replaceChildren(...parts);
}

const bounds = (series, floor, least) => {
    const values = series.flatMap(({ points }) => points.map(([, v]) => v)).filter(Number.isFinite);
    return [Math.min(floor, ...values), Math.max(least, ...values)];
};

function drawWeights(names) {
    const at = spread(AGES);
    const series = names.map((name) => ({ name, points: at.map((k) => [k + 1, Math.abs(computed(name).weights[k])]) }));
    const high = 10 ** Math.ceil(Math.log10(bounds(series, 1, 0.5)[1]) - 1e-9);
    figure($("#weights"), { x: { log: true, domain: [1, AGES], label: "age of the gradient + 1, in steps" }, y: { log: true, domain: [1e-6, high] }, series });
}

function drawRate(names) {
    const at = spread(STEPS);
    const series = names.map((name) => ({ name, points: at.map((k) => [k + 1, computed(name).rate[k]]) }));
    const [, most] = bounds(series, 0, 1), log = most > 4;
    figure($("#rate"), { x: { log: true, domain: [1, STEPS], label: "steps of a constant gradient" }, y: { log, domain: log ? [0.01, 10 ** Math.ceil(Math.log10(most * 1.1) - 1e-9)] : [0, 1.15 * most] }, series });
}

function drawTurn(names) {
    const series = names.map((name) => {
        const { turn } = computed(name), before = turn[0];
        return { name, points: spread(AFTER + 1).map((k) => [k + 1, turn[k] / before]) };
    });
    figure($("#turn"), { x: { log: true, domain: [1, AFTER], label: "steps after the reversal + 1" }, y: { domain: [-1.35, 1.2] }, series, zero: true });
}

function drawPath(names) {
    const canvas = $("#path"), scene = LANDSCAPES[landscape], [x0, y0, x1, y1] = scene.box;
    const width = canvas.parentElement.clientWidth - 2, height = Math.max(230, Math.min(320, width * 0.62)), ratio = devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d"), style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim() || colour("ink");
    context.scale(ratio, ratio);
    const px = (x) => ((x - x0) / (x1 - x0)) * width, py = (y) => height - ((y - y0) / (y1 - y0)) * height;
    const cell = 3, levels = 13;
    context.fillStyle = colour("valley");
    for (let i = 0; i < width; i += cell) {
        for (let j = 0; j < height; j += cell) {
            const value = scene.value(x0 + ((i + cell / 2) / width) * (x1 - x0), y0 + (1 - (j + cell / 2) / height) * (y1 - y0));
            const level = Math.floor(2 * Math.log2(1 + 8 * value)) / (2 * levels);
            context.globalAlpha = Math.max(0, 0.85 - 0.85 * Math.min(1, level));
            context.fillRect(i, j, cell, cell);
        }
    }
    context.globalAlpha = 1;
    context.strokeStyle = context.fillStyle = colour("ink");
    context.lineWidth = 1.5;
    const [gx, gy] = scene.goal.map((v, k) => (k ? py(v) : px(v)));
    context.beginPath();
    context.moveTo(gx - 6, gy);
    context.lineTo(gx + 6, gy);
    context.moveTo(gx, gy - 6);
    context.lineTo(gx, gy + 6);
    context.stroke();
    const ends = {};
    context.lineJoin = "round";
    for (const name of names) {
        const path = run(RULES[name], settings[name], scene.start, scene.gradient, steps).filter((p) => p.every((v) => Math.abs(v) < 1e6));
        context.strokeStyle = context.fillStyle = colour(name);
        context.lineWidth = 2;
        context.beginPath();
        path.forEach(([x, y], i) => (i ? context.lineTo(px(x), py(y)) : context.moveTo(px(x), py(y))));
        context.stroke();
        const [x, y] = path[path.length - 1];
        context.beginPath();
        context.arc(px(x), py(y), 4.5, 0, 7);
        context.fill();
        ends[name] = path.length <= steps ? NaN : scene.value(x, y);
    }
    context.fillStyle = colour("ink");
    context.beginPath();
    context.arc(px(scene.start[0]), py(scene.start[1]), 3.5, 0, 7);
    context.fill();
    canvas.setAttribute("aria-label", `${scene.title}, after ${steps} steps: ` + names.map((name) => `${RULES[name].title} ${short(ends[name])}`).join(", "));
    return ends;
}

function numbers(names, ends) {
    const rows = names.map((name) => {
        const { weights, rate, turn } = computed(name);
        const mass = weights.reduce((sum, w) => sum + Math.abs(w), 0);
        let half = 0;
        for (let sum = 0; half < weights.length && (sum += Math.abs(weights[half])) < mass / 2; half++);
        const back = turn.findIndex((move) => move / turn[0] < 0);
        const cells = [short(Number(mass.toPrecision(3))), half.toLocaleString("en"), short(Number(rate[STEPS - 1].toPrecision(3))), back < 0 ? `over ${AFTER}` : back.toLocaleString("en"), Number.isNaN(ends[name]) ? "diverged" : short(Number(ends[name].toPrecision(3)))];
        return make("tr", {}, make("th", { scope: "row", style: `--own: var(--${name}, var(--ink))` }, make("i", {}), RULES[name].title), ...cells.map((text) => make("td", {}, text)));
    });
    $("#numbers tbody").replaceChildren(...rows);
}

let waiting = false;
function refresh() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
        waiting = false;
        const names = inOrder();
        $("#steps-said").textContent = steps;
        drawWeights(names);
        drawRate(names);
        drawTurn(names);
        numbers(names, drawPath(names));
        document.body.classList.toggle("empty", names.length === 0);
    });
}

// --- light or dark: as the site that the page is shown in, where there is one, or as the reader prefers --------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
let around = null;
try {
    around = parent === window ? null : parent.document;
} catch {} // of another site
function recolour() {
    const scheme = around?.body.dataset.mdColorScheme;
    document.documentElement.dataset.scheme = (scheme ? scheme === "slate" : prefersDark.matches) ? "dark" : "light";
    refresh();
}

controls();
recolour();
addEventListener("resize", refresh);
prefersDark.addEventListener("change", recolour);
if (around) new MutationObserver(recolour).observe(around.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
