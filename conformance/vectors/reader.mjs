// Reads vectors and steps them: exit status 1 where a bit differs. node reader.mjs JOBS, where JOBS is a JSON file: a list of
// {"module": path of an exported rule, "function": its name, "vectors": path of its file, "ids": [those that it is for]}.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const FORMATS = { f64: [53, -1022, 64], f32: [24, -126, 32], f16: [11, -14, 16], bf16: [8, -126, 16] };
const WORDS = new DataView(new ArrayBuffer(8));

/** The number that a text such as f32:3f800000 is. */
function number(text) {
    const [name, digits] = text.split(":"), [precision, emin, width] = FORMATS[name];
    const bits = BigInt("0x" + digits), m = precision - 1;
    if (name === "f64") return WORDS.setBigUint64(0, bits), WORDS.getFloat64(0);
    const exponent = Number((bits >> BigInt(m)) & ((1n << BigInt(width - precision)) - 1n));
    const mantissa = Number(bits & ((1n << BigInt(m)) - 1n));
    const top = 2 ** (width - precision) - 1;
    const size = exponent === top ? (mantissa ? NaN : Infinity)
        : exponent ? (mantissa + 2 ** m) * 2 ** (exponent - 1 + emin - m) : mantissa * 2 ** (emin - m);
    return bits >> BigInt(width - 1) ? -size : size;
}

/** The bits of a number, rounded to a format. All NaN are one. */
function bits(x, name) {
    const [precision, emin, width] = FORMATS[name], m = precision - 1;
    if (name === "f64") return x !== x ? 0x7ff8000000000000n : (WORDS.setFloat64(0, x), WORDS.getBigUint64(0));
    const infinity = (2 ** (width - precision) - 1) * 2 ** m;
    let found = infinity + (x !== x ? 2 ** (m - 1) : 0);
    if (Math.abs(x) < Infinity) {
        WORDS.setFloat64(0, x);
        const exponent = Math.max(((WORDS.getUint16(0) >> 4) & 2047) - 1023, emin);
        const scaled = Math.abs(x) * 2 ** (m - exponent);
        const rounded = scaled + 2 ** 52 - 2 ** 52; // to the nearest, ties to even
        found = Math.min((exponent - emin) * 2 ** m + rounded, infinity);
    }
    const negative = x < 0 || Object.is(x, -0);
    return BigInt(found) | (negative ? 1n << BigInt(width - 1) : 0n);
}

const MASK = (1n << 64n) - 1n;

function mix(word) {
    word = ((word + 1n) * 0x9e3779b97f4a7c15n) & MASK;
    word = ((word ^ (word >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    word = ((word ^ (word >> 27n)) * 0x94d049bb133111ebn) & MASK;
    return word ^ (word >> 31n);
}

let failed = 0, tests = 0, chains = 0;
function problem(rule, id, says) {
    console.log(`${rule} ${id}: ${says}`);
    failed++;
}

function run(rule, group, test, step) {
    const FloatArray = group.arithmetic === "float64" ? Float64Array : Float32Array;
    const format = Object.fromEntries(group.columns.map((name) => [name, test.in[name].split(":")[0]]));
    const state = { step: (test.t ?? 1) - 1 };
    const place = {}; // of a column: the object that holds it, and its key there
    for (const name of group.columns) {
        const [, field, index] = /^(\w+)\[(\d+)\]$/.exec(name) ?? [null, name, null];
        const value = number(test.in[name]);
        if (group.carried.includes(name)) [state[name], place[name]] = [value, [state, name]];
        else {
            const array = FloatArray.of(value);
            if (index === null) state[field] = array;
            else (state[field] ??= [])[index] = array;
            place[name] = [array, 0];
        }
    }
    const get = (name) => place[name][0][place[name][1]];
    const hyper = Object.fromEntries(Object.entries(test.hyper ?? group.hyper).map(([name, x]) => {
        return [name, Array.isArray(x) ? x.map(number) : x === null ? null : number(x)];
    }));
    const advance = (gradient) => {
        step(state, FloatArray.of(gradient), hyper);
        state.params[0] = number(`${format.params}:${bits(state.params[0], format.params).toString(16)}`);
    };
    if (test.steps) {
        chains++;
        let digest = 0n;
        const half = 2n ** BigInt(test.digits - 1);
        for (let t = 0; t < test.steps; t++) {
            const word = mix(bits(state.params[0], format.params)) >> BigInt(64 - test.digits);
            advance(Number(word - half) / Number(half));
            for (const name of group.columns) digest = mix(digest ^ bits(get(name), format[name]));
        }
        const text = digest.toString(16).padStart(16, "0");
        if (text !== test.digest) problem(rule, test.id, `the digest is ${text}, not ${test.digest}`);
    } else {
        tests++;
        let said = null;
        try {
            advance(number(test.grad));
        } catch (error) {
            if (!(error instanceof RangeError)) throw error;
            said = error.message;
        }
        if (test.result.startsWith("reject:") !== (said !== null)) problem(rule, test.id, said ?? "was not refused");
        if (said !== null || test.result.startsWith("reject:")) return;
    }
    for (const name of group.columns) {
        const found = bits(get(name), format[name]), want = BigInt("0x" + test.out[name].split(":")[1]);
        if (found !== want) problem(rule, test.id, `${name} is ${found.toString(16)}, not ${want.toString(16)}`);
    }
}

for (const job of JSON.parse(readFileSync(process.argv[2], "utf8"))) {
    const step = (await import(pathToFileURL(job.module)))[job.function];
    const vectors = JSON.parse(readFileSync(job.vectors, "utf8")), ids = new Set(job.ids);
    for (const group of vectors.groups) for (const test of group.tests) if (ids.has(test.id)) run(vectors.rule, group, test, step);
    for (const chain of vectors.chains) if (ids.has(chain.id)) run(vectors.rule, chain, chain, step);
}
console.log(`${tests} tests, ${chains} chains`);
process.exitCode = failed ? 1 : 0;
