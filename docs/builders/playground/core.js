"use strict";
// What the page computes, without a page: the rules are their programs, exported to JavaScript.

/** The state before the first step, or as if `step` steps without a gradient had been taken. */
function newState(rule, params, step = 0) {
    const state = { params: Float64Array.from(params), step, ...rule.carried };
    for (const [name, count] of Object.entries(rule.slots)) {
        const zeros = () => new Float64Array(params.length);
        state[name] = count === null ? zeros() : Array.from({ length: count }, zeros);
    }
    return state;
}

/** The params after each step, the start among them; `gradient(params, t)` gives that of step t. */
function run(rule, hyper, params, gradient, steps) {
    const state = newState(rule, params);
    const path = [Array.from(params)];
    for (let t = 1; t <= steps; t++) {
        rule.step(state, gradient(state.params, t), hyper);
        path.push(Array.from(state.params));
    }
    return path;
}

/** How far a parameter moves at each step, in units of lr, against the gradient's sign, for gradients that t alone decides. */
function moves(rule, hyper, gradient, steps) {
    const state = newState(rule, [0]);
    const still = { ...hyper, ...("weight_decay" in hyper ? { weight_decay: 0 } : {}) };
    const found = [];
    for (let t = 1; t <= steps; t++) {
        state.params[0] = 0;
        rule.step(state, [gradient(t)], still);
        found.push(-state.params[0] / hyper.lr);
    }
    return found;
}

const LATE = 2 ** 40; // steps after which bias corrections and warm-ups are over

/**
 * The weight of a gradient in the step that is taken `age` steps later, with the second moment held: what a gradient of 1 among
 * zeros does. A guard that is huge holds the second moment, as it leaves nothing else in the denominator. Where a sign is taken it
 * is the weight in what the sign is of, and the sum of all weights is 1.
 */
function weightsByAge(rule, hyper, ages) {
    const huge = 2 ** 200;
    const held = { ...hyper, lr: 1, ...("weight_decay" in hyper ? { weight_decay: 0 } : {}), ...("eps" in hyper ? { eps: huge } : {}) };
    const scale = "eps" in hyper ? huge : 1;
    const state = newState(rule, [0], LATE);
    for (const name of Object.keys(rule.carried)) state[name] = 0; // a product that has gone to 0
    const found = [];
    for (let age = 0; age < ages; age++) {
        const grad = age === 0 ? 1 : 0;
        state.params[0] = 0;
        state.step = LATE;
        (rule.unsigned ?? rule.step)(state, [grad], held);
        found.push(-state.params[0] * scale);
    }
    return found;
}

/** The move at each step for a gradient of 1 throughout: the effective learning rate, over lr. */
const effectiveRate = (rule, hyper, steps) => moves(rule, hyper, () => 1, steps);

/** The moves around a reversal: a gradient of 1 for `before` steps, then of -1. */
const reversal = (rule, hyper, before, after) => moves(rule, hyper, (t) => (t <= before ? 1 : -1), before + after).slice(before - 1);

/** A number in [-1, 1) from an integer, by whole-number arithmetic alone: the same everywhere. */
function noise(seed) {
    let x = Math.imul(seed + 1, 0x9e3779b1);
    x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) / 2147483648 - 1;
}

const LANDSCAPES = {
    rosenbrock: {
        title: "Rosenbrock's valley",
        start: [-1.5, 2.0],
        goal: [1, 1],
        box: [-2.1, -0.9, 2.1, 3.1],
        value: (x, y) => (1 - x) * (1 - x) + 100 * (y - x * x) * (y - x * x),
        gradient: ([x, y]) => [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)],
    },
    noisy: {
        title: "A noisy valley",
        start: [-1.8, 1.2],
        goal: [0, 0],
        box: [-2.1, -1.5, 2.1, 1.5],
        value: (x, y) => 0.5 * x * x + 10 * y * y,
        gradient: ([x, y], t) => [x + 2 * noise(2 * t), 20 * y + 20 * noise(2 * t + 1)],
    },
};
