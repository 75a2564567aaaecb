#include "recipe_settings.hpp"

#include <algorithm>

#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"

namespace mha2mla::tool {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

bool is_path(const CLI::Option& option) { return option.get_type_name() == "FILE" || option.get_type_name() == "DIR"; }
bool is_flag(const CLI::Option& option) { return option.get_items_expected_max() == 0; }

/// The value of an option in JSON: flags as true or false, numbers as numbers.
Json value_json(const CLI::Option& option, const std::string& text) {
    if (is_flag(option)) return text == "true";
    const Json number = Json::parse(text, nullptr, false);
    return number.is_number() ? number : Json(text);
}

std::string shell_quoted(const std::string& text) {
    const auto plain = [](unsigned char c) {
        return std::isalnum(c) != 0 ||
               std::string_view("_-./:=+,@%").find(static_cast<char>(c)) != std::string_view::npos;
    };
    if (!text.empty() && std::all_of(text.begin(), text.end(), plain)) return text;
    std::string quoted = "'";
    for (const char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return quoted + "'";
}

std::string absolute_text(const fs::path& path) { return fs::absolute(path).lexically_normal().string(); }

std::string value_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

/// The options that `add` adds to a command.
/// @param of_batch those that batch gives itself
template <typename Flags>
std::vector<RecipeSetting> settings_of(void (*add)(CLI::App&, Flags&),
                                       const std::vector<std::string_view>& of_batch = {}) {
    CLI::App app;
    app.set_help_flag();
    Flags flags;
    add(app, flags);
    std::vector<RecipeSetting> settings;
    for (const auto* option : std::as_const(app).get_options()) {
        if (option->get_lnames().empty()) continue;  // an argument
        const std::string& name = option->get_lnames().front();
        if (std::ranges::find(of_batch, name) == of_batch.end()) settings.push_back({name, is_path(*option)});
    }
    return settings;
}

template <typename Flags>
Flags parsed(void (*add)(CLI::App&, Flags&), const Json& settings, const std::string& where) {
    CLI::App app;
    Flags flags;
    add(app, flags);
    std::vector<std::string> arguments;
    for (const auto& [name, value] : settings.items()) {
        const Json values = value.is_array() ? value : Json::array({value});
        for (const auto& each : values) arguments.push_back("--" + name + "=" + value_text(each));
    }
    std::reverse(arguments.begin(), arguments.end());  // CLI11 expects them in reverse order
    try {
        app.parse(arguments);
    } catch (const CLI::ParseError& error) {
        throw Error(ErrorCode::usage, where + ": " + error.what());
    }
    return flags;
}

std::string where_in(const BatchJob& job) { return "job '" + job.name + "'"; }

}  // namespace

std::vector<RecipeSetting> convert_settings() { return settings_of(add_conversion_options); }

RecipeSettings recipe_settings() {
    return {convert_settings(), settings_of(add_training_settings),
            settings_of(add_evaluation_options, {"longbench-score", "predictions", "overwrite"})};
}

Json recipe_of(const CLI::App& command, const ConvertFlags& flags) {
    Json job;
    job["source"] = absolute_text(flags.source);
    job["destination"] = absolute_text(flags.destination);
    for (const auto& setting : convert_settings()) {
        const auto* option = command.get_option("--" + setting.name);
        if (option->count() == 0) continue;
        const std::string text = option->results().back();
        job[setting.name] = setting.is_path ? Json(absolute_text(text)) : value_json(*option, text);
    }
    return {{"jobs", Json::array({job})}};
}

Json written(const Json& recipe) {
    Json job = recipe.at("jobs").at(0);
    for (auto& [name, value] : job.items()) {
        if (!value.is_string()) continue;
        std::string text;
        for (const char c : value.get<std::string>()) text += c == '$' ? std::string("$$") : std::string(1, c);
        value = text;
    }
    return {{"jobs", Json::array({job})}};
}

Json published(const Json& recipe, const Model& source) {
    Json job = recipe.at("jobs").at(0);
    job["source"] = base_model(source);
    const auto shorten = [&job](const std::string& key) {
        const fs::path path = job.at(key).get<std::string>();
        const bool was_stream = path.parent_path() == "/proc/self/fd";  // see readable_text()
        job[key] =
            was_stream
                ? "-"
                : (path / "").parent_path().filename().string();  // works for a path that ends with a slash as well
    };
    shorten("destination");
    for (const auto& setting : convert_settings()) {
        if (setting.is_path && job.contains(setting.name)) shorten(setting.name);
    }
    return {{"jobs", Json::array({job})}};
}

std::string command_line(const Json& recipe) {
    const Json& job = recipe.at("jobs").at(0);
    std::string text = "mha2mla convert " + shell_quoted(job.at("source")) + " " + shell_quoted(job.at("destination"));
    for (const auto& [name, value] : job.items()) {
        if (name == "source" || name == "destination" || value == false) continue;
        text += " --" + name + (value == true ? "" : " " + shell_quoted(value_text(value)));
    }
    return text;
}

ConvertFlags flags_of(const BatchJob& job) {
    ConvertFlags flags = parsed(add_conversion_options, job.settings, where_in(job));
    flags.source = job.source;
    flags.destination = job.destination;
    return flags;
}

FinetuneFlags finetune_flags_of(const BatchJob& job) {
    FinetuneFlags flags = parsed(add_training_settings, job.finetune, where_in(job) + ", finetune");
    flags.model = job.converted();
    flags.output = job.finetuned();
    return flags;
}

EvalFlags eval_flags_of(const BatchJob& job, const BatchEvaluation& evaluation) {
    EvalFlags flags =
        parsed(add_evaluation_options, evaluation.settings, where_in(job) + ", evaluation " + evaluation.name);
    flags.model = job.result();
    return flags;
}

}  // namespace mha2mla::tool
