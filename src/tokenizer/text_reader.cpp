#include "text_reader.hpp"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <limits>
#include <new>
#include <span>
#include <utility>

#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

constexpr std::string_view kGzip = "\x1f\x8b", kZstd = "\x28\xb5\x2f\xfd";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";  // of UTF-8
constexpr std::size_t kPart = std::size_t{1} << 20U;         // unpacked at a time
/// Text gets ten times shorter, not hundreds of times: that is a file made to fill the memory.
constexpr std::uint64_t kMostGrowth = 200, kAlwaysAllowed = std::uint64_t{64} << 20U;

/// What is not UTF-8 text, by how it begins, and what to do with it.
struct OtherFormat {
    std::string_view start, next_step;
};
constexpr std::array<OtherFormat, 9> kOtherFormats = {{
    {"PAR1", "is Parquet: write the column of the text as JSON Lines, with pandas or duckdb"},
    {"PK\x03\x04", "is a zip archive: unpack it first"},
    {"\xff\xfe", "is UTF-16: convert it with iconv -f UTF-16 -t UTF-8"},
    {"\xfe\xff", "is UTF-16: convert it with iconv -f UTF-16 -t UTF-8"},
    {"BZh", "is compressed by bzip2: unpack it with bunzip2, or pipe it in with bzcat"},
    {"\xfd\x37zXZ", "is compressed by xz: unpack it with unxz, or pipe it in with xzcat"},
    {"version https://git-lfs.github.com/", "is a pointer of git-lfs, not the file: fetch that with git lfs pull"},
    // Of what is unpacked:
    {kGzip, "is compressed twice: unpack it first"},
    {kZstd, "is compressed twice: unpack it first"},
}};

}  // namespace

class TextReader::Unpacker {
public:
    Unpacker() = default;
    virtual ~Unpacker() = default;
    Unpacker(const Unpacker&) = delete;
    Unpacker& operator=(const Unpacker&) = delete;
    Unpacker(Unpacker&&) = delete;
    Unpacker& operator=(Unpacker&&) = delete;

    /// Takes from `in` what it needs. @return how many bytes of `out` it filled; 0 at the end of the text.
    /// @throws const char*: what is wrong with the data
    virtual std::size_t unpack(std::span<const std::byte>& in, std::span<char> out) = 0;
};

class TextReader::Gzip final : public Unpacker {
public:
    Gzip() {
        constexpr int kOnlyGzip = 15 + 16;
        if (::inflateInit2(&stream_, kOnlyGzip) != Z_OK) throw std::bad_alloc();
    }
    ~Gzip() override { ::inflateEnd(&stream_); }
    Gzip(const Gzip&) = delete;
    Gzip& operator=(const Gzip&) = delete;
    Gzip(Gzip&&) = delete;
    Gzip& operator=(Gzip&&) = delete;

    std::size_t unpack(std::span<const std::byte>& in, std::span<char> out) override {
        stream_.next_out = reinterpret_cast<Bytef*>(out.data());
        stream_.avail_out = static_cast<uInt>(out.size());
        while (stream_.avail_out == out.size()) {
            if (ended_) {
                // Files of gzip may be put behind each other. What follows and is none, such as zeros, is no part.
                const std::string_view rest(reinterpret_cast<const char*>(in.data()), in.size());
                if (!rest.starts_with(kGzip)) return 0;
                ::inflateReset(&stream_);
                ended_ = false;
            }
            const std::size_t given = std::min<std::size_t>(in.size(), std::numeric_limits<int>::max());
            stream_.next_in = reinterpret_cast<z_const Bytef*>(const_cast<std::byte*>(in.data()));  // NOLINT
            stream_.avail_in = static_cast<uInt>(given);
            const int status = ::inflate(&stream_, Z_NO_FLUSH);
            in = in.subspan(given - stream_.avail_in);
            ended_ = status == Z_STREAM_END;
            if (status == Z_MEM_ERROR) throw std::bad_alloc();
            if (status == Z_BUF_ERROR && in.empty()) throw "ends early; is the download complete?";
            if (status != Z_OK && !ended_) throw "is damaged; download it again";
            if (status == Z_OK && in.empty() && stream_.avail_out == out.size())
                throw "ends early; is the download complete?";
        }
        return out.size() - stream_.avail_out;
    }

private:
    z_stream stream_{};
    bool ended_ = false;
};

class TextReader::Zstd final : public Unpacker {
public:
    Zstd() : context_(::ZSTD_createDCtx()) {
        if (context_ == nullptr) throw std::bad_alloc();
        // Otherwise a header could ask for a buffer of any size.
        constexpr int kLargestWindow = 27;
        (void)::ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kLargestWindow);
    }

    std::size_t unpack(std::span<const std::byte>& in, std::span<char> out) override {
        ZSTD_outBuffer to{out.data(), out.size(), 0};
        while (to.pos == 0) {
            if (in.empty() && between_frames_) return 0;
            ZSTD_inBuffer from{in.data(), in.size(), 0};
            const std::size_t status = ::ZSTD_decompressStream(context_.get(), &to, &from);
            if (::ZSTD_isError(status) != 0) throw "is damaged; download it again";
            const bool no_input = in.empty();
            in = in.subspan(from.pos);
            between_frames_ = status == 0;
            if (no_input && to.pos == 0 && !between_frames_) throw "ends early; is the download complete?";
        }
        return to.pos;
    }

private:
    struct Free {
        void operator()(ZSTD_DCtx* context) const { ::ZSTD_freeDCtx(context); }
    };
    std::unique_ptr<ZSTD_DCtx, Free> context_;
    bool between_frames_ = true;
};

TextReader::TextReader(const std::filesystem::path& path) : path_(path), file_(path) {
    const std::string_view whole(reinterpret_cast<const char*>(file_.bytes().data()), file_.bytes().size());
    if (whole.starts_with(kGzip)) {
        unpacker_ = std::make_unique<Gzip>();
    } else if (whole.starts_with(kZstd)) {
        unpacker_ = std::make_unique<Zstd>();
    }
    constexpr std::size_t kLongestStart = 64;
    const std::string_view start = peek(kLongestStart);
    refuse_other_formats(start);
    if (start.starts_with(kByteOrderMark)) take(kByteOrderMark.size());
}

TextReader::~TextReader() = default;

void TextReader::fail(const std::string& problem) const {
    throw Error(ErrorCode::format, path_.string() + ": the compressed text " + problem);
}

void TextReader::refuse_other_formats(std::string_view text) const {
    for (const OtherFormat& other : kOtherFormats) {
        if (!text.starts_with(other.start)) continue;
        throw Error(ErrorCode::unsupported, path_.string() + " " + std::string(other.next_step));
    }
}

std::string_view TextReader::peek(std::size_t bytes) {
    const std::span<const std::byte> packed = file_.bytes();
    if (unpacker_ == nullptr) {
        return std::string_view(reinterpret_cast<const char*>(packed.data()), packed.size()).substr(begin_);
    }
    if (unpacked_.size() - begin_ < bytes) unpacked_.erase(0, std::exchange(begin_, 0));
    while (unpacked_.size() - begin_ < bytes) {
        const std::size_t before = unpacked_.size();
        unpacked_.resize(before + kPart);
        std::span<const std::byte> rest = packed.subspan(packed_taken_);
        std::size_t count = 0;
        try {
            count = unpacker_->unpack(rest, std::span(unpacked_).subspan(before));
        } catch (const char* problem) {
            fail(problem);
        }
        packed_taken_ = packed.size() - rest.size();
        unpacked_.resize(before + count);
        unpacked_bytes_ += count;
        if (unpacked_bytes_ > kMostGrowth * packed.size() + kAlwaysAllowed) {
            fail("is more than " + std::to_string(kMostGrowth) + " times as long as the file; unpack it and look");
        }
        if (count == 0) break;
    }
    return std::string_view(unpacked_).substr(begin_);
}

}  // namespace mha2mla
