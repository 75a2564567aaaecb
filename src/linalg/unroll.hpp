#pragma once

/// In front of a loop over registers. Sums stay in registers only if the loops over them are unrolled before the
/// compiler looks for registers.
#if defined(__clang__)
#define MHA2MLA_UNROLL _Pragma("unroll")
#else
#define MHA2MLA_UNROLL _Pragma("GCC unroll 16")
#endif
