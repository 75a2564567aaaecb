#pragma once
/// How the programs under test are built, for tests of the system's limits: what the build itself takes of these is not
/// the program's.

namespace mha2mla::test {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

/// LLVM's OpenMP writes a file of 1024 bytes in /dev/shm when it starts.
#if defined(__clang__)
inline constexpr bool kLlvmOpenMp = true;
#else
inline constexpr bool kLlvmOpenMp = false;
#endif

}  // namespace mha2mla::test
