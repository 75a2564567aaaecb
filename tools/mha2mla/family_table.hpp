#pragma once
/// What is said of every supported family, by `families` and in its page.

#include <string>
#include <string_view>
#include <vector>

namespace mha2mla::tool {

/// Whether a family converts to a layout, and what loads the result.
struct FamilyLayout {
    std::string_view layout;
    bool converts = false;
    std::string unless;        // a rule that some of its models have, which the layout has no place for; or empty
    std::string why_not;       // where it does not convert
    std::string_view runs_in;  // where it does
};

struct FamilyRow {
    std::string_view model_type, covers;
    std::vector<std::string> needs;  // operations
    std::vector<FamilyLayout> layouts;
};
[[nodiscard]] std::vector<FamilyRow> family_rows();

/// The same as a table in Markdown.
[[nodiscard]] std::string family_markdown();

/// "yes", "unless it has a sliding window", "no: norms of queries and keys".
[[nodiscard]] std::string verdict_of(const FamilyLayout& layout);

/// Texts with ", " between them.
[[nodiscard]] std::string joined(const std::vector<std::string>& texts);

}  // namespace mha2mla::tool
