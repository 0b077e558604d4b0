/* AdamW behind "xopt check cmd:./adamw --rule adamw": JSON lines in, JSON lines out, nothing but the C library.
   Compile: cc -O1 -ffp-contract=off -o adamw adamw.c -lm */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 4096
static double p[MOST], m[MOST], v[MOST];
static double lr, beta1, beta2, eps, decay;
static int n, t;

/* The number behind "name": in the line, or what there was. */
static double number(const char *line, const char *name, double otherwise) {
    char key[64];
    snprintf(key, sizeof key, "\"%s\": ", name);
    const char *at = strstr(line, key);
    return at ? strtod(at + strlen(key), NULL) : otherwise;
}

/* The numbers of the first leaf behind "name": [[ */
static int numbers(const char *line, const char *name, double *into) {
    char key[64];
    snprintf(key, sizeof key, "\"%s\": [[", name);
    const char *at = strstr(line, key);
    int count = 0;
    if (!at) return 0;
    at += strlen(key);
    while (*at != ']' && count < MOST) {
        char *end;
        into[count++] = strtod(at, &end);
        at = *end == ',' ? end + 1 : end;
    }
    return count;
}

static void answer(void) {
    printf("{\"params\": [[");
    for (int i = 0; i < n; i++) {
        if (isnan(p[i])) printf("%sNaN", i ? ", " : "");
        else if (isinf(p[i])) printf("%s%sInfinity", i ? ", " : "", p[i] < 0 ? "-" : "");
        else printf("%s%.17g", i ? ", " : "", p[i]);
    }
    printf("]]}\n");
}

int main(void) {
    static char line[1 << 20];
    static double g[MOST];
    while (fgets(line, sizeof line, stdin)) {
        if (strstr(line, "\"do\": \"describe\"")) {
            printf("{\"name\": \"adamw.c\", \"dtypes\": [\"float64\"], \"changes\": true, \"arguments\": {\"lr\": 0.001, "
                   "\"beta1\": 0.9, \"beta2\": 0.999, \"eps\": 1e-8, \"weight_decay\": 0.01}}\n");
        } else if (strstr(line, "\"do\": \"start\"")) {
            lr = number(line, "lr", 0.001), beta1 = number(line, "beta1", 0.9), beta2 = number(line, "beta2", 0.999);
            eps = number(line, "eps", 1e-8), decay = number(line, "weight_decay", 0.01);
            n = numbers(line, "params", p), t = 0;
            memset(m, 0, sizeof m), memset(v, 0, sizeof v);
            answer();
        } else if (strstr(line, "\"do\": \"step\"")) {
            numbers(line, "grads", g);
            lr = number(line, "lr", lr), t++;
            for (int i = 0; i < n; i++) {
                m[i] = beta1 * m[i] + (1 - beta1) * g[i];
                v[i] = beta2 * v[i] + (1 - beta2) * g[i] * g[i];
                double top = m[i] / (1 - pow(beta1, t)), root = sqrt(v[i] / (1 - pow(beta2, t)));
                p[i] -= lr * (top / (root + eps) + decay * p[i]);
            }
            answer();
        } else {
            printf("{\"error\": \"not known\"}\n");
        }
        fflush(stdout);
    }
    return 0;
}
