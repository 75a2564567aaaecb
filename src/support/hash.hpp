#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla {

/// A 128-bit XXH3 hash, in the hexadecimal form of xxh128sum. It detects damage and changes, but not forgery.
class Hasher {
public:
    Hasher();
    ~Hasher();
    Hasher(const Hasher&) = delete;
    Hasher& operator=(const Hasher&) = delete;
    Hasher(Hasher&& other) noexcept;
    Hasher& operator=(Hasher&& other) noexcept;

    void add(std::span<const std::byte> data);
    void add(std::string_view text) { add(std::as_bytes(std::span(text))); }
    /// The hash of all data added so far.
    [[nodiscard]] std::string hex() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// The hash of `data`.
[[nodiscard]] std::string hash_of(std::span<const std::byte> data);

}  // namespace mha2mla
