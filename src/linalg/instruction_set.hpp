#pragma once

/// Loops that are compiled for more than one instruction set, and run on the best that the processor has: each file has
/// a table of its loops with a row per set, made by a macro that takes one of these targets.

namespace mha2mla {

#if defined(__x86_64__)
#define MHA2MLA_AVX2 __attribute__((target("avx2,fma")))
#define MHA2MLA_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#endif

/// Whether the loops that are compiled for AVX2 and FMA run on this processor.
inline bool has_avx2() {
#if defined(__x86_64__)
    static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return found;
#else
    return false;
#endif
}

/// The same for AVX-512.
inline bool has_avx512() {
#if defined(__x86_64__)
    static const bool found = has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    return found;
#else
    return false;
#endif
}

/// The row of a table for this processor.
template <typename Row>
const Row& best_of(const Row& baseline, const Row& avx2, const Row& avx512) {
    return has_avx512() ? avx512 : has_avx2() ? avx2 : baseline;
}

}  // namespace mha2mla
