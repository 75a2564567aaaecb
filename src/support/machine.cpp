#include "mha2mla/machine.hpp"

#include <cblas.h>
#include <hwy/detect_targets.h>
#include <hwy/targets.h>

namespace mha2mla {

std::string blas_description() {
    std::string config = openblas_get_config();
    while (!config.empty() && config.back() == ' ') config.pop_back();
    return config + ", kernels for " + openblas_get_corename();
}

std::string_view vector_kernels() {
    // Of those that are compiled and that this CPU has, the best has the lowest bit.
    const std::int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
    return hwy::TargetName(usable & -usable);
}

std::vector<std::string_view> cpu_features() {
    std::vector<std::string_view> features;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    const auto add = [&](bool present, std::string_view name) {
        if (present) features.push_back(name);
    };
    add(__builtin_cpu_supports("sse4.2") != 0, "sse4.2");
    add(__builtin_cpu_supports("avx") != 0, "avx");
    add(__builtin_cpu_supports("avx2") != 0, "avx2");
    add(__builtin_cpu_supports("fma") != 0, "fma");
    add(__builtin_cpu_supports("avx512f") != 0, "avx512f");
    add(__builtin_cpu_supports("avx512bw") != 0, "avx512bw");
    add(__builtin_cpu_supports("avx512vnni") != 0, "avx512vnni");
#endif
    return features;
}

}  // namespace mha2mla
