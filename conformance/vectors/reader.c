/*
 * Reads vectors, one test a line, and steps them: exit status 1 where a bit differs. The file of a rule is standard input,
 * and a glue of a few lines, which names the types, is included: STEP, REAL, `column` and `state`, and HYPER.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; int digits, emin, width; } formats[] = {
    {"bf16:", 8, -126, 4}, {"f16:", 11, -14, 4}, {"f32:", 24, -126, 8}, {"f64:", 53, -1022, 16}, {"null", 0, 0, 0}};

/* The number that the bits behind the next name of a format are; moves the place behind it. */
static double number(const char **at, int *format) {
    const char *found = NULL;
    for (int f = 0; f < 5; f++) {
        const char *here = strstr(*at, formats[f].name);
        if (here && (!found || here < found)) {
            found = here;
            *format = f;
        }
    }
    if (!found) {
        fprintf(stderr, "no number where one should be: %.40s\n", *at);
        exit(2);
    }
    if (*format == 4) { /* what is off */
        *at = found + 4;
        return NAN;
    }
    const int m = formats[*format].digits - 1, emin = formats[*format].emin, width = formats[*format].width;
    char *end;
    const uint64_t bits = strtoull(strchr(found, ':') + 1, &end, 16), mantissa = bits & ((1ull << m) - 1);
    const int top = 4 * width - 1 - m, exponent = (int)(bits >> m & ((1u << top) - 1));
    *at = end;
    double size = exponent ? ldexp((double)(mantissa + (1ull << m)), exponent - 1 + emin - m) : ldexp((double)mantissa, emin - m);
    if (exponent == (1 << top) - 1)
        size = mantissa ? NAN : INFINITY;
    return bits >> (4 * width - 1) ? -size : size;
}

/* The bits of a number, rounded to a format. All NaN are one. */
static uint64_t bits_of(double x, int format) {
    const int m = formats[format].digits - 1, emin = formats[format].emin, width = formats[format].width;
    const uint64_t infinity = ((1ull << (4 * width - 1 - m)) - 1) << m;
    if (x != x)
        return infinity | 1ull << (m - 1);
    uint64_t found = infinity;
    if (fabs(x) < INFINITY) {
        const int exponent = x == 0 || ilogb(x) < emin ? emin : ilogb(x);
        found = ((uint64_t)(exponent - emin) << m) + (uint64_t)rint(ldexp(fabs(x), m - exponent));
        found = found > infinity ? infinity : found;
    }
    return found | (uint64_t)(signbit(x) != 0) << (4 * width - 1);
}

static uint64_t mix(uint64_t word) {
    word = (word + 1) * 0x9E3779B97F4A7C15u;
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9u;
    word = (word ^ word >> 27) * 0x94D049BB133111EBu;
    return word ^ word >> 31;
}

static const char *behind(const char *line, const char *key) {
    const char *at = strstr(line, key);
    return at ? at + strlen(key) : NULL;
}

static double from_column(int k) { return k < COLUMNS ? (double)column[k] : *carried[k - COLUMNS]; }

static void to_column(int k, double x) {
    if (k < COLUMNS)
        column[k] = (REAL)x;
    else
        *carried[k - COLUMNS] = x;
}

static HYPER hyper;
static int format[COLUMNS + CARRIED + 1], grad_format, failed, tests, chains;

static void read_hyper(const char *line) {
    const char *at = behind(line, "\"hyper\": {"); /* doubles in the order of the type, arrays flat: as it lies in memory */
    double numbers[sizeof(HYPER) / sizeof(double)];
    for (size_t k = 0; k < sizeof(HYPER) / sizeof(double); k++) {
        int f;
        numbers[k] = number(&at, &f);
    }
    memcpy(&hyper, numbers, sizeof hyper);
}

static void read_state(const char *line) {
    const char *at = behind(line, "\"in\": {");
    for (int k = 0; k < COLUMNS + CARRIED; k++)
        to_column(k, number(&at, &format[k]));
}

static const char *step(double gradient) {
    const REAL grad = (REAL)gradient;
    const char *said = CALL;
    return said;
}

static uint64_t bits_at(int k) { return bits_of(from_column(k), format[k]); }

static void store_params(void) { /* as the vector's format holds it */
    char text[32];
    const char *at = text;
    int f;
    snprintf(text, sizeof text, "%s%" PRIx64, formats[format[0]].name, bits_at(0));
    column[0] = (REAL)number(&at, &f);
}

static void compare(const char *line, int id) {
    const char *at = behind(line, "\"out\": {");
    for (int k = 0; k < COLUMNS + CARRIED; k++) {
        int f;
        const double want = number(&at, &f);
        if (bits_at(k) != bits_of(want, f)) {
            printf("%d: column %d is %" PRIx64 ", not %" PRIx64 "\n", id, k, bits_at(k), bits_of(want, f));
            failed++;
        }
    }
}

static void run(const char *line) {
    const char *at, *id = behind(line, "\"id\": "), *digits = behind(line, "\"digits\": ");
    read_state(line);
    if (digits) {
        const int width = atoi(digits), steps = atoi(behind(line, "\"steps\": "));
        uint64_t digest = 0;
        chains++;
        for (state.step = 0; state.step < steps;) {
            const int64_t half = (int64_t)1 << (width - 1);
            step((double)((int64_t)(mix(bits_at(0)) >> (64 - width)) - half) / (double)half);
            store_params();
            for (int k = 0; k < COLUMNS + CARRIED; k++)
                digest = mix(digest ^ bits_at(k));
        }
        if (digest != strtoull(behind(line, "\"digest\": \""), NULL, 16)) {
            printf("%d: the digest is %016" PRIx64 "\n", atoi(id), digest);
            failed++;
        }
        compare(line, atoi(id));
        return;
    }
    tests++;
    state.step = strtoll(behind(line, "\"t\": "), NULL, 10) - 1;
    at = behind(line, "\"grad\": ");
    const char *said = step(number(&at, &grad_format));
    if (strstr(line, "\"result\": \"reject:") ? !said : said != NULL) {
        printf("%d: %s\n", atoi(id), said ? said : "was not refused");
        failed++;
    } else if (!said) {
        store_params();
        compare(line, atoi(id));
    }
}

int main(void) {
    static char line[1 << 16];
    while (fgets(line, sizeof line, stdin)) {
        if (strstr(line, "\"hyper\": {"))
            read_hyper(line);
        if (strstr(line, "\"id\": "))
            run(line);
    }
    printf("%d tests, %d chains\n", tests, chains);
    return failed != 0;
}
