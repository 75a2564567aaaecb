#pragma once
/// Unicode normalisation forms.

#include <string>
#include <string_view>

namespace mha2mla {

enum class UnicodeForm { nfc, nfd, nfkc, nfkd };

/// `text` (valid UTF-8) in this form, in O(n log n) for any text.
[[nodiscard]] std::string to_unicode_form(std::string_view text, UnicodeForm form);

}  // namespace mha2mla
