#include "version.hpp"

#include "commit.hpp"
#include "mha2mla/machine.hpp"
#include "mha2mla/threads.hpp"
#include "mha2mla/version.hpp"

namespace mha2mla::tool {

std::string version_text() {
    std::string features;
    for (const auto feature : cpu_features()) features += " " + std::string(feature);
    const std::string commit = MHA2MLA_COMMIT;
    return "mha2mla " + std::string(version()) + (commit.empty() ? "" : " (commit " + commit + ")") +
           "\nBLAS:    " + blas_description() + "\nkernels: " + std::string(vector_kernels()) +
           (has_amx() ? "\nAMX:     in conversions and training, unless MHA2MLA_AMX=0" : "") +
           "\nCPU:    " + (features.empty() ? " no vector features known" : features) +
           "\nthreads: " + std::to_string(thread_count());
}

}  // namespace mha2mla::tool
