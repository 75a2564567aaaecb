#pragma once
/// The instruction sets that vector loops are compiled for, to be included before any header of Highway: on x86-64
/// SSE4, AVX2 and AVX-512, on ARM NEON. Not those whose vectors have no fixed length, because the loops hold their sums
/// in arrays of vectors.

#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)
#if defined(__x86_64__)
#define HWY_BASELINE_TARGETS HWY_SSE4  // every processor since 2011
#endif
