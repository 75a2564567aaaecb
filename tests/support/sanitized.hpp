#pragma once
/// How the programs under test are built, for tests of the system's limits: what the build itself takes of these is not
/// the program's.

#if !defined(__has_feature)  // GCC
#define __has_feature(feature) 0
#endif

namespace mha2mla::test {

/// ThreadSanitizer maps a file of its own when it starts, and ends where the limit of a file's size cuts it short.
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = kThreadSanitizer;
#endif

/// LLVM's OpenMP writes a file of 1024 bytes in /dev/shm when it starts.
#if defined(__clang__)
inline constexpr bool kLlvmOpenMp = true;
#else
inline constexpr bool kLlvmOpenMp = false;
#endif

}  // namespace mha2mla::test
