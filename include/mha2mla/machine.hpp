#pragma once
/// Description of the machine: the BLAS and the vector extensions in use. They affect results only by rounding.

#include <string>
#include <string_view>
#include <vector>

namespace mha2mla {

/// The loaded BLAS: its version, its build options, and the kernels that it chose for this CPU.
[[nodiscard]] std::string blas_description();

/// The instruction set for which the library's own kernels run on this CPU, by Highway's name: "AVX2", "AVX3_ZEN4",
/// "NEON".
[[nodiscard]] std::string_view vector_kernels();

/// The vector extensions of this CPU that the library can use, named as compilers name them; empty if unknown.
[[nodiscard]] std::vector<std::string_view> cpu_features();

/// Whether conversions and training multiply on the tiles of AMX: the processor has them with BF16, the system lets
/// this process use them and nobody forbids it (MHA2MLA_AMX=0). Asks the system once.
[[nodiscard]] bool has_amx();

}  // namespace mha2mla
