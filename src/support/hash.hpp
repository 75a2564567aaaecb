#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mha2mla {

/// XXH3 with 128 bits, in the hexadecimal form that xxh128sum prints. It tells damage and change, not forgery.
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
    /// Of everything so far.
    [[nodiscard]] std::string hex() const;

private:
    struct State;
    std::unique_ptr<State> state_;
};

[[nodiscard]] std::string hash_of(std::span<const std::byte> data);

}  // namespace mha2mla
