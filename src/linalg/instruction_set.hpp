#pragma once

namespace mha2mla {

/// Whether the loops that are compiled for AVX2 and FMA run on this processor.
inline bool has_avx2() {
#if defined(__x86_64__)
    static const bool found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    return found;
#else
    return false;
#endif
}

}  // namespace mha2mla
