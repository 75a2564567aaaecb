#include "mha2mla/generate.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kLongest = 64;  // most tokens that are decoded together
constexpr std::size_t kKept = 16;     // tokens kept as context when the older ones are dropped

/// The length of a UTF-8 character by its first byte; 1 if no character starts with it.
std::size_t length_by_first_byte(unsigned char first) {
    if (first >= 0xF0 && first <= 0xF4) return 4;
    if (first >= 0xE0) return first < 0xF0 ? 3 : 1;
    return first >= 0xC2 ? 2 : 1;
}

}  // namespace

std::size_t whole_characters(std::string_view text) {
    for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
        const auto byte = static_cast<unsigned char>(text[text.size() - back]);
        if ((byte & 0xC0U) == 0x80U) continue;  // inside a character
        return length_by_first_byte(byte) > back ? text.size() - back : text.size();
    }
    return text.size();
}

TextStream::TextStream(const Tokenizer& tokenizer, std::span<const TokenId> ids)
    : tokenizer_(&tokenizer), ids_(ids.begin(), ids.end()) {
    returned_ = whole_characters(tokenizer.decode(ids_, true));
}

std::string TextStream::new_part(std::string_view text) {
    if (text.size() <= returned_) return {};
    std::string fresh(text.substr(returned_));
    returned_ = text.size();
    return fresh;
}

std::string TextStream::add(TokenId id) {
    ids_.push_back(id);
    const std::string text = tokenizer_->decode(ids_, true);
    std::string fresh = new_part(std::string_view(text).substr(0, whole_characters(text)));
    if (ids_.size() > kLongest && returned_ == text.size()) {
        ids_.erase(ids_.begin(), ids_.end() - kKept);
        returned_ = tokenizer_->decode(ids_, true).size();
    }
    return fresh;
}

std::string TextStream::finish() {
    const std::string text = tokenizer_->decode(ids_, true);
    const bool cut_off = whole_characters(text) < text.size();
    returned_ = text.size();
    return cut_off ? "\xEF\xBF\xBD" : "";
}

}  // namespace mha2mla
