#include "gemm.hpp"

#include <cblas.h>

namespace mha2mla {
namespace {
blasint narrow(std::int64_t value) { return static_cast<blasint>(value); }
}  // namespace

void multiply_abt(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                  MatrixOut c) {
    if (m == 0 || n == 0) return;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, narrow(m), narrow(n), narrow(k), alpha, a.data,
                narrow(a.stride), b.data, narrow(b.stride), beta, c.data, narrow(c.stride));
}

void multiply_ab(std::int64_t m, std::int64_t n, std::int64_t k, float alpha, MatrixIn a, MatrixIn b, float beta,
                 MatrixOut c) {
    if (m == 0 || n == 0) return;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, narrow(m), narrow(n), narrow(k), alpha, a.data,
                narrow(a.stride), b.data, narrow(b.stride), beta, c.data, narrow(c.stride));
}

}  // namespace mha2mla
