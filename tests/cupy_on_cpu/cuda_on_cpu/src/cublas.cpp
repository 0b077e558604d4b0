// A stand-in for libcublas.so.12: products of matrices in plain loops, for the model that is trained on digits beside the rules.
#include "stand_in.h"
#include <cstddef>

namespace {
enum { SINGLE = 0, DOUBLE = 1, HALF = 2 };  // cudaDataType_t

double get(const void *p, int type, size_t i) {
    return type == HALF ? (double)((const _Float16 *)p)[i] : type == SINGLE ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
void set(void *p, int type, size_t i, double x) {
    if (type == HALF) ((_Float16 *)p)[i] = (_Float16)(float)x;
    else if (type == SINGLE) ((float *)p)[i] = (float)x;
    else ((double *)p)[i] = x;
}

struct Matrix {
    const void *at;
    int type, transposed;
    size_t stride;
    double operator()(size_t row, size_t column) const {
        return get(at, type, transposed ? column + row * stride : row + column * stride);
    }
};

// c = alpha a b + beta c, of columns behind one another.
template <class Sum>
int product(int m, int n, int k, Sum alpha, Matrix a, Matrix b, Sum beta, void *c, int type, size_t stride) {
    Open open(stand_in_device());
    for (int j = 0; j < n; ++j)
        for (int i = 0; i < m; ++i) {
            Sum sum = 0;
            for (int l = 0; l < k; ++l) sum += (Sum)a(i, l) * (Sum)b(l, j);
            const size_t at = i + j * stride;
            set(c, type, at, beta == 0 ? alpha * sum : alpha * sum + beta * (Sum)get(c, type, at));
        }
    return 0;
}
}  // namespace

extern "C" {
int cublasCreate_v2(void **handle) { *handle = new int; return 0; }
int cublasDestroy_v2(void *handle) { delete (int *)handle; return 0; }
int cublasGetVersion_v2(void *, int *version) { *version = 120900; return 0; }
int cublasSetStream_v2(void *, void *) { return 0; }
int cublasSetPointerMode_v2(void *, int) { return 0; }
int cublasGetPointerMode_v2(void *, int *mode) { *mode = 0; return 0; }
int cublasSetMathMode(void *, int) { return 0; }
int cublasGetMathMode(void *, int *mode) { *mode = 0; return 0; }
int cublasSgemm_v2(void *, int ta, int tb, int m, int n, int k, const float *alpha, const void *a, int lda, const void *b, int ldb, const float *beta, void *c, int ldc) {
    return product<float>(m, n, k, *alpha, {a, SINGLE, ta, (size_t)lda}, {b, SINGLE, tb, (size_t)ldb}, *beta, c, SINGLE, ldc);
}
int cublasDgemm_v2(void *, int ta, int tb, int m, int n, int k, const double *alpha, const void *a, int lda, const void *b, int ldb, const double *beta, void *c, int ldc) {
    return product<double>(m, n, k, *alpha, {a, DOUBLE, ta, (size_t)lda}, {b, DOUBLE, tb, (size_t)ldb}, *beta, c, DOUBLE, ldc);
}
int cublasGemmEx(void *, int ta, int tb, int m, int n, int k, const void *alpha, const void *a, int ka, int lda, const void *b, int kb, int ldb, const void *beta, void *c, int kc, int ldc, int, int) {
    const Matrix left{a, ka, ta, (size_t)lda}, right{b, kb, tb, (size_t)ldb};
    if (ka == DOUBLE) return product<double>(m, n, k, *(const double *)alpha, left, right, *(const double *)beta, c, kc, ldc);
    return product<float>(m, n, k, *(const float *)alpha, left, right, *(const float *)beta, c, kc, ldc);
}
}
