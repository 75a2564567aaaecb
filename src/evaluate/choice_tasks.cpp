#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "json_lines.hpp"
#include "mha2mla/choices.hpp"
#include "mha2mla/error.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::json;

std::string text(const Json& line, const char* key) { return line.at(key).get<std::string>(); }

/// Reads a whole number, or a string that holds one, which some versions of the data sets have.
std::int64_t whole_number(const Json& value) {
    if (value.is_number_integer()) return value.get<std::int64_t>();
    if (value.is_string()) {
        const auto digits = value.get<std::string>();
        std::int64_t number = 0;
        const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
        if (failure == std::errc() && end == digits.data() + digits.size()) return number;
    }
    throw Error(ErrorCode::format, "the answer is " + value.dump(-1, ' ', false, Json::error_handler_t::replace) +
                                       ", not a whole number; a test split without answers cannot be scored");
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
    std::string result;
    for (std::size_t at = 0;;) {
        const std::size_t found = text.find(from, at);
        result += text.substr(at, found - at);
        if (found == std::string_view::npos) return result;
        result += to;
        at = found + from.size();
    }
}

/// Python's str.capitalize for ASCII: the first letter large, the others small.
std::string capitalize(std::string text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (i == 0 && c >= 'a' && c <= 'z') text[i] = static_cast<char>(c - 'a' + 'A');
        if (i > 0 && c >= 'A' && c <= 'Z') text[i] = static_cast<char>(c - 'A' + 'a');
    }
    return text;
}

std::string strip(const std::string& text) {
    const auto first = text.find_first_not_of(" \t\r\n");
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1);
}

/// lighteval's hellaswag_preprocess, which removes brackets because they are artefacts of WikiHow.
std::string without_brackets(std::string_view raw) {
    const std::string text = replace_all(raw, " [title]", ". ");
    std::string result;
    std::size_t close = 0, line_end = 0;  // the first ones behind `open`
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t open = text.find('[', at);
        if (open != std::string::npos && close < open) close = text.find(']', open);
        if (open == std::string::npos || close == std::string::npos)
            return replace_all(result + text.substr(at), "  ", " ");
        if (line_end < open) line_end = text.find('\n', open);
        result.append(text, at, open - at);
        const bool within_line = line_end > close;
        if (!within_line) result += '[';
        at = within_line ? close + 1 : open + 1;
    }
    return replace_all(result, "  ", " ");
}

std::vector<std::string> with_spaces(const Json& choices) {
    std::vector<std::string> result;
    for (const auto& choice : choices) result.push_back(" " + choice.get<std::string>());
    return result;
}

ChoiceItem read_item(const Json& line) {
    return {text(line, "query"), line.at("choices").get<std::vector<std::string>>(), whole_number(line.at("gold"))};
}

ChoiceItem read_hellaswag(const Json& line) {
    ChoiceItem item;
    item.query = without_brackets(text(line, "activity_label") + ": " + text(line, "ctx_a") + " " +
                                  capitalize(text(line, "ctx_b")) + " ");
    for (const auto& ending : line.at("endings")) item.choices.push_back(without_brackets(ending.get<std::string>()));
    item.gold = whole_number(line.at("label"));
    return item;
}

ChoiceItem read_piqa(const Json& line) {
    return {"Question: " + text(line, "goal") + "\nAnswer:",
            {" " + text(line, "sol1"), " " + text(line, "sol2")},
            whole_number(line.at("label"))};
}

/// Reads a question with labelled choices, in the form of the Hugging Face hub or in that of AI2, which has an object
/// `question` with `stem` and a list of choices. @param stem the key of the question's text in the form of the hub
ChoiceItem read_labelled(const Json& line, const char* stem) {
    const bool published = line.contains("question") && line.at("question").is_object();
    ChoiceItem item;
    std::vector<std::string> labels;
    if (published) {
        item.query = text(line.at("question"), "stem");
        for (const auto& choice : line.at("question").at("choices")) {
            item.choices.push_back(" " + text(choice, "text"));
            labels.push_back(text(choice, "label"));
        }
    } else {
        item.query = text(line, stem);
        item.choices = with_spaces(line.at("choices").at("text"));
        labels = line.at("choices").at("label").get<std::vector<std::string>>();
    }
    const auto found = std::find(labels.begin(), labels.end(), strip(text(line, "answerKey")));
    item.gold = found == labels.end() ? -1 : found - labels.begin();
    return item;
}

ChoiceItem read_arc(const Json& line) {
    ChoiceItem item = read_labelled(line, "question");
    item.query = "Question: " + item.query + "\nAnswer:";
    return item;
}

ChoiceItem read_openbookqa(const Json& line) { return read_labelled(line, "question_stem"); }

ChoiceItem read_winogrande(const Json& line) {
    const std::string sentence = text(line, "sentence");
    const std::size_t gap = sentence.find('_');
    if (gap == std::string::npos) throw Error(ErrorCode::format, "'sentence' has no '_'");
    const std::string end = strip(sentence.substr(gap + 1));
    return {sentence.substr(0, gap),
            {text(line, "option1") + " " + end, text(line, "option2") + " " + end},
            std::max<std::int64_t>(whole_number(line.at("answer")), 0) - 1};
}

/// Reads the cloze form of MMLU, which the evaluation of SmolLM uses and the paper follows: the choices are full
/// answers instead of letters.
ChoiceItem read_mmlu(const Json& line) {
    return {"The following are questions about " + replace_all(text(line, "subject"), "_", " ") +
                ".\nQuestion: " + text(line, "question") + "\nAnswer:",
            with_spaces(line.at("choices")), whole_number(line.at("answer"))};
}

constexpr ChoiceTask kTasks[] = {
    {"items", "query, choices, gold", read_item},
    {"hellaswag", "activity_label, ctx_a, ctx_b, endings, label", read_hellaswag},
    {"piqa", "goal, sol1, sol2, label", read_piqa},
    {"arc", "question, choices.text, choices.label, answerKey", read_arc},
    {"openbookqa", "question_stem, choices.text, choices.label, answerKey", read_openbookqa},
    {"winogrande", "sentence, option1, option2, answer", read_winogrande},
    {"mmlu", "subject, question, choices, answer", read_mmlu},
};

ChoiceItem read_item_of(const Json& line, const ChoiceTask& task) {
    ChoiceItem item = task.read(line);
    if (item.choices.empty()) throw Error(ErrorCode::format, "the question has no choices");
    if (item.gold < 0 || item.gold >= static_cast<std::int64_t>(item.choices.size())) {
        throw Error(ErrorCode::format, "the answer is not among the " + std::to_string(item.choices.size()) +
                                           " choices; a test split without answers cannot be scored");
    }
    return item;
}

}  // namespace

std::span<const ChoiceTask> choice_tasks() { return kTasks; }

std::vector<ChoiceItem> read_choices(const std::filesystem::path& file, const ChoiceTask& task) {
    const JsonLines lines(file);
    const std::string needs = "; " + std::string(task.name) + " needs the keys " + std::string(task.keys);
    std::vector<ChoiceItem> items;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        items.push_back(lines.read(i, needs, [&](const Json& line) { return read_item_of(line, task); }));
    }
    if (items.empty()) throw Error(ErrorCode::format, file.string() + ": the file has no questions");
    return items;
}

}  // namespace mha2mla
