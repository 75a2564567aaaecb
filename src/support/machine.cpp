#include "mha2mla/machine.hpp"

#include <cblas.h>
#include <hwy/detect_targets.h>
#include <hwy/targets.h>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdlib>
#endif

namespace mha2mla {
#if defined(__x86_64__) && defined(__linux__)
namespace {

bool asks_for_amx() {
    const char* value = std::getenv("MHA2MLA_AMX");  // NOLINT(concurrency-mt-unsafe): this program never changes it
    return value == nullptr || std::string_view(value) != "0";
}

bool cpu_has_amx() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
    constexpr unsigned kAvx512 = 1U << 16U | 1U << 17U | 1U << 30U | 1U << 31U;  // F, DQ, BW, VL
    constexpr unsigned kAmx = 1U << 22U | 1U << 24U;                             // BF16, tiles
    if ((b & kAvx512) != kAvx512 || (d & kAmx) != kAmx) return false;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1U << 5U) != 0;  // AVX512_BF16
}

/// Linux gives a process the registers of tiles when it asks for them.
bool system_allows_amx() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return ::syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool has_amx() {
    static const bool present = asks_for_amx() && cpu_has_amx() && system_allows_amx();
    return present;
}
#else
bool has_amx() { return false; }
#endif

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
