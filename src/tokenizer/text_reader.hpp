#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "mha2mla/mapped_file.hpp"

namespace mha2mla {

/// Reads a text file from its beginning, no further than asked, and unpacks one that gzip or zstd packed. The mark that
/// some programs write before UTF-8 is left out.
class TextReader {
public:
    /// @throws Error{io}; Error{unsupported} if it is of a known format that is no text, with what to do.
    explicit TextReader(const std::filesystem::path& path);
    ~TextReader();
    TextReader(const TextReader&) = delete;
    TextReader& operator=(const TextReader&) = delete;
    TextReader(TextReader&&) = delete;
    TextReader& operator=(TextReader&&) = delete;

    /// The text from where take() left off: `bytes` of it or more, or less if the text ends before. It is valid until
    /// the next call.
    /// @throws Error{format} if what is packed is damaged, ends early, or becomes more than 200 times as long.
    [[nodiscard]] std::string_view peek(std::size_t bytes);
    /// Goes on by so many bytes of what peek() gave.
    void take(std::size_t bytes) { begin_ += bytes; }

private:
    class Unpacker;
    class Gzip;
    class Zstd;
    [[noreturn]] void fail(const std::string& problem) const;
    void refuse_other_formats(std::string_view text) const;

    std::filesystem::path path_;
    MappedFile file_;
    std::unique_ptr<Unpacker> unpacker_;  // null: the file is the text
    std::size_t packed_taken_ = 0;
    std::string unpacked_;
    std::uint64_t unpacked_bytes_ = 0;  // since the beginning of the file
    std::size_t begin_ = 0;             // of what was not taken, in the file or in `unpacked_`
};

}  // namespace mha2mla
