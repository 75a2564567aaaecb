#include <algorithm>
#include <set>

#include "../support/json_file.hpp"
#include "mha2mla/batch.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/suggestion.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostJobs = 10'000;
constexpr std::size_t kMostBytes = 16'000'000;
constexpr std::size_t kMostEvaluations = 1'000;  // of a job
constexpr std::size_t kMostText = 64'000'000;    // of all settings, with 64 bytes for each

[[noreturn]] void fail(const std::string& where, const std::string& problem) {
    throw Error(ErrorCode::format, where + ": " + problem);
}

void check_keys(const Json& object, const std::vector<std::string>& known, const std::string& where) {
    if (!object.is_object()) fail(where, "must be an object");
    for (const auto& [key, value] : object.items()) {
        if (std::find(known.begin(), known.end(), key) != known.end()) continue;
        const std::string meant = did_you_mean(key, known);
        if (!meant.empty()) fail(where, "unknown key '" + key + "'" + meant);
        std::string names;
        for (const auto& name : known) names += (names.empty() ? "" : ", ") + name;
        fail(where, "unknown key '" + key + "'; choose from " + names);
    }
}

void check_value(const Json& value, const std::string& where) {
    if (!value.is_string() && !value.is_number() && !value.is_boolean()) {
        fail(where, "must be a string, a number, true or false, not " + value.dump());
    }
}

std::vector<std::string> names_of(std::vector<std::string> keys, std::span<const RecipeSetting> settings) {
    for (const auto& setting : settings) keys.push_back(setting.name);
    return keys;
}

/// Of an evaluation that has none: after its data and the format of its cache.
std::string evaluation_name(const Json& settings) {
    const auto text_at = [&](const char* key) {
        const auto found = settings.find(key);
        return found != settings.end() && found->is_string() ? found->get<std::string>() : std::string();
    };
    std::string name = text_at("longbench").empty() ? text_at("task") : "longbench";
    for (const char* key : {"choices", "text", "tokens"}) {
        if (name.empty()) name = fs::path(text_at(key)).stem().string();
    }
    const std::string cache = text_at("kv-cache");
    return cache.empty() ? name : name + "-" + cache;
}

/// One choice of a value for every key of a grid.
using Choice = std::vector<std::pair<std::string, Json>>;

/// Every combination, the last key changing fastest.
std::vector<Choice> combinations(const Json& grid, const std::string& where) {
    std::vector<Choice> choices = {{}};
    for (const auto& [key, values] : grid.items()) {
        const std::string place = where + " of '" + key + "'";
        if (!values.is_array() || values.empty()) fail(place, "must be a list of at least one value");
        if (choices.size() * values.size() > kMostJobs) {
            fail(where, "expands to more than " + std::to_string(kMostJobs) + " jobs");
        }
        std::vector<Choice> longer;
        for (const auto& choice : choices) {
            for (const auto& value : values) {
                check_value(value, place);
                longer.push_back(choice);
                longer.back().emplace_back(key, value);
            }
        }
        choices = std::move(longer);
    }
    return choices;
}

/// Reads one recipe; see docs/batch.md for what it may hold.
class Reader {
public:
    Reader(const Json& recipe, const fs::path& path, const RecipeSettings& settings)
        : recipe_(recipe),
          file_(path.string()),
          directory_(path.parent_path()),
          settings_(settings),
          variables_(file_) {}

    Recipe read(const std::map<std::string, std::string>& given) {
        check_keys(recipe_, {"variables", "defaults", "output", "jobs"}, file_);
        Json variables = recipe_.value("variables", Json::object());
        if (!variables.is_object()) fail(file_ + ": variables", "must be an object");
        replace(variables, given);
        for (const auto& [name, value] : variables.items()) {
            check_value(value, file_ + ": variable '" + name + "'");
            variables_.set(name, value);
        }
        for (const auto& [name, value] : variables.items()) (void)variables_.expand(value);  // also those not used
        Recipe result;
        result.output = path_of(variables_.expand(recipe_.value("output", Json("out"))), file_ + ": output");
        variables_.set("output", fs::absolute(result.output).lexically_normal().string());
        const Json jobs = recipe_.value("jobs", Json());
        if (!jobs.is_array() || jobs.empty()) fail(file_, "'jobs' must be a list of at least one job");
        for (std::size_t i = 0; i < jobs.size(); ++i) add_jobs(jobs[i], "job " + std::to_string(i + 1), result);
        check_destinations(result);
        return result;
    }

private:
    /// Numbers and truth values stay what they are.
    void replace(Json& variables, const std::map<std::string, std::string>& given) const {
        std::vector<std::string> known;
        for (const auto& [name, value] : variables.items()) known.push_back(name);
        for (const auto& [name, text] : given) {
            if (!variables.contains(name)) {
                throw Error(ErrorCode::usage, file_ + ": has no variable '" + name + "'" + did_you_mean(name, known));
            }
            const Json value = Json::parse(text, nullptr, false);
            variables[name] = value.is_number() || value.is_boolean() ? value : Json(text);
        }
    }

    fs::path path_of(const Json& value, const std::string& where) const {
        const bool is_path = value.is_string() && !value.get<std::string>().empty() &&
                             value.get<std::string>().find('\0') == std::string::npos;
        if (!is_path) fail(where, "must be a path");
        return (directory_ / value.get<std::string>()).lexically_normal();
    }

    void add_jobs(const Json& job, const std::string& number, Recipe& result) {
        const std::string where = file_ + ": " + number;
        const Json defaults = recipe_.value("defaults", Json::object());
        auto keys = names_of({"source", "destination", "convert", "finetune", "evaluate", "grid"}, settings_.convert);
        check_keys(job, keys, where);
        check_keys(defaults, keys, file_ + ": defaults");
        Json merged = defaults;
        merged.update(job);
        const Json grid = merged.value("grid", Json::object());
        merged.erase("grid");
        const bool converts = merged.value("convert", Json(true)) != Json(false);
        const std::span<const RecipeSetting> in_grid(settings_.convert.data(), converts ? settings_.convert.size() : 0);
        check_keys(grid, names_of({"source", "destination"}, in_grid), where + ", grid");
        for (const auto& choice : combinations(grid, where + ", grid")) {
            Json values = merged;
            for (const auto& [key, value] : choice) values[key] = value;
            result.jobs.push_back(one_job(values, choice, where, result.output));
            if (result.jobs.size() > kMostJobs)
                fail(file_, "expands to more than " + std::to_string(kMostJobs) + " jobs");
        }
    }

    BatchJob one_job(const Json& values, const Choice& choice, const std::string& where, const fs::path& output) {
        if (!values.contains("source")) fail(where, "has no source; give the directory of a checkpoint");
        BatchJob job;
        Variables variables = variables_;
        job.source = path_of(variables.expand(values.at("source")), where + ", source");
        const std::string source_name = fs::absolute(job.source / "").parent_path().filename().string();
        variables.set("source-name", source_name);
        variables.set("source", fs::absolute(job.source).lexically_normal().string());
        const Json converts = values.value("convert", Json(true));
        if (!converts.is_boolean()) fail(where + ", convert", "must be true or false");
        job.converts = converts.get<bool>();
        job.settings = Json::object();
        for (const auto& setting : settings_.convert) {
            if (!job.converts || !values.contains(setting.name)) continue;
            const std::string place = where + ", " + setting.name;
            check_value(values.at(setting.name), place);
            const Json value = counted(variables.expand(values.at(setting.name)));
            job.settings[setting.name] = setting.is_path ? Json(path_of(value, place).string()) : value;
            variables.set(setting.name, value);
        }
        std::string standard = source_name + (job.converts ? "-mla" : "");
        for (const auto& [key, value] : choice) {
            if (key != "source" && key != "destination") standard += "-" + key + "-" + text_of(variables.expand(value));
        }
        job.destination = values.contains("destination")
                              ? path_of(variables.expand(values.at("destination")), where + ", destination")
                              : output / standard;
        if (job.destination.filename().empty()) job.destination = job.destination.parent_path();
        job.name = job.destination.filename().string();
        variables.set("destination", fs::absolute(job.destination).lexically_normal().string());
        add_stages(values, variables, where, job);
        return job;
    }

    /// The value, which counts towards kMostText: a grid repeats what `defaults` have.
    Json counted(Json value) {
        text_ += 64 + (value.is_string() ? value.get_ref<const std::string&>().size() : 0);
        if (text_ > kMostText) fail(file_, "expands to more than " + std::to_string(kMostText) + " bytes of settings");
        return value;
    }

    /// Reads what follows the conversion.
    void add_stages(const Json& values, const Variables& variables, const std::string& where, BatchJob& job) {
        if (const Json finetune = values.value("finetune", Json()); !finetune.is_null()) {
            job.finetune = stage_settings(finetune, {}, settings_.finetune, variables, where + ", finetune");
        }
        const Json evaluations = values.value("evaluate", Json::array());
        if (!evaluations.is_array() || evaluations.size() > kMostEvaluations) {
            fail(where + ", evaluate",
                 "must be a list of at most " + std::to_string(kMostEvaluations) + " evaluations");
        }
        std::set<std::string> names;
        for (const auto& evaluation : evaluations) {
            const std::string place = where + ", evaluation " + std::to_string(names.size() + 1);
            Json settings = stage_settings(evaluation, {"name"}, settings_.evaluate, variables, place);
            const Json given = variables.expand(evaluation.value("name", Json("")));
            std::string name = given.is_string() ? given.get<std::string>() : given.dump();
            if (name.empty()) name = evaluation_name(settings);
            if (name.empty() || name.starts_with(".") || name.find_first_of(std::string_view("/\0", 2)) != name.npos) {
                fail(place, "has no name that a file can have; give it one with 'name'");
            }
            if (!names.insert(name).second) {
                fail(place, "has the same name as another of this job, '" + name + "'; give it one with 'name'");
            }
            job.evaluations.push_back({name, std::move(settings)});
        }
        if (!job.converts && job.finetune.is_null() && job.evaluations.empty()) {
            fail(where, "does nothing: it has neither a conversion nor 'finetune' nor 'evaluate'");
        }
    }

    /// The settings of another command than convert, where a value may be a list.
    Json stage_settings(const Json& values, const std::vector<std::string>& more_keys,
                        std::span<const RecipeSetting> known, const Variables& variables, const std::string& where) {
        check_keys(values, names_of(more_keys, known), where);
        Json settings = Json::object();
        for (const auto& setting : known) {
            if (!values.contains(setting.name)) continue;
            const std::string place = where + ", " + setting.name;
            const auto one = [&](const Json& value) {
                check_value(value, place);
                const Json expanded = counted(variables.expand(value));
                return setting.is_path ? Json(path_of(expanded, place).string()) : expanded;
            };
            const Json& value = values.at(setting.name);
            if (!value.is_array()) {
                settings[setting.name] = one(value);
                continue;
            }
            settings[setting.name] = Json::array();
            for (const auto& each : value) settings[setting.name].push_back(one(each));
        }
        return settings;
    }

    /// Of a value in the name of a directory.
    static std::string text_of(const Json& value) {
        if (!value.is_string()) return value.dump();
        return fs::path(value.get<std::string>()).filename().string();
    }

    void check_destinations(const Recipe& result) const {
        std::map<fs::path, const BatchJob*> seen;
        const auto add = [&](const fs::path& path, const BatchJob& job) {
            const fs::path destination = fs::weakly_canonical(path);
            const auto [it, inserted] = seen.emplace(destination, &job);
            if (inserted) return;
            const BatchJob& other = *it->second;
            fail(file_, "two jobs have one destination, " + destination.string() + ": from " + other.source.string() +
                            " with " + other.settings.dump() + ", and from " + job.source.string() + " with " +
                            job.settings.dump());
        };
        std::set<std::string> evaluated;
        for (const BatchJob& job : result.jobs) {
            if (!job.evaluations.empty() && !evaluated.insert(job.name).second) {
                fail(file_, "two jobs with evaluations have one name, '" + job.name +
                                "', by which their results are kept; end their destinations differently");
            }
            add(job.destination, job);
            if (!job.finetune.is_null()) add(job.finetuned(), job);
        }
    }

    const Json& recipe_;
    std::string file_;
    fs::path directory_;
    const RecipeSettings& settings_;
    Variables variables_;
    std::size_t text_ = 0;
};

}  // namespace

Recipe read_recipe(const fs::path& path, const RecipeSettings& settings,
                   const std::map<std::string, std::string>& variables) {
    const auto recipe = read_json_file<Json>(path, kMostBytes, RepeatedKeys::refused);
    return Reader(recipe, path, settings).read(variables);
}

}  // namespace mha2mla
