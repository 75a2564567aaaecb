#include "byte_level.hpp"

#include <array>
#include <cstdint>

#include "utf8.hpp"

namespace mha2mla::byte_level {
namespace {

// Bytes that are printable in Latin-1 map to themselves; the others map to consecutive characters from U+0100.
constexpr char32_t kFirstSubstitute = 0x100;
constexpr std::size_t kAlphabetEnd = 0x144;

constexpr bool stands_for_itself(unsigned byte) {
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

constexpr std::array<char32_t, 256> make_characters() {
    std::array<char32_t, 256> table{};
    char32_t next = kFirstSubstitute;
    for (unsigned byte = 0; byte < 256; ++byte) table[byte] = stands_for_itself(byte) ? byte : next++;
    return table;
}

constexpr std::array<std::int16_t, kAlphabetEnd> make_bytes() {
    std::array<std::int16_t, kAlphabetEnd> table{};
    for (auto& entry : table) entry = -1;
    const auto characters = make_characters();
    for (unsigned byte = 0; byte < 256; ++byte) table[characters[byte]] = static_cast<std::int16_t>(byte);
    return table;
}

constexpr auto kCharacters = make_characters();
constexpr auto kBytes = make_bytes();

}  // namespace

void append_encoded(std::string& out, std::string_view bytes) {
    for (const char byte : bytes) utf8::append(out, kCharacters[static_cast<unsigned char>(byte)]);
}

void append_decoded(std::string& out, std::string_view token) {
    const std::size_t before = out.size();
    for (std::size_t at = 0; at < token.size();) {
        const utf8::CodePoint c = utf8::decode(token, at);
        if (c.length == 0 || c.value >= kAlphabetEnd || kBytes[c.value] < 0) {
            out.resize(before);
            out += token;
            return;
        }
        out += static_cast<char>(static_cast<unsigned char>(kBytes[c.value]));
        at += c.length;
    }
}

}  // namespace mha2mla::byte_level
