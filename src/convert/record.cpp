#include "record.hpp"

#include <sstream>

#include "../support/json_file.hpp"
#include "../tokenizer/utf8.hpp"
#include "journal.hpp"
#include "mha2mla/atomic_file.hpp"
#include "mha2mla/conversion_request.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/fingerprint.hpp"
#include "mha2mla/record.hpp"
#include "mha2mla/version.hpp"
#include "output_files.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "mha2mla record 2";

/// The lines of the source's front matter that also apply to the conversion: licence and language.
std::vector<std::string> inherited_front_matter(const fs::path& card) {
    std::error_code ignored;
    if (!fs::exists(card, ignored)) return {};
    const MappedFile file(card);
    std::string_view whole(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    if (whole.starts_with("\xEF\xBB\xBF")) whole.remove_prefix(3);
    std::istringstream text{std::string(whole)};
    std::vector<std::string> lines;
    std::string line;
    const auto next = [&] {
        if (!std::getline(text, line)) return false;
        if (line.ends_with('\r')) line.pop_back();
        return true;
    };
    if (!next() || line != "---") return {};
    while (next() && line != "---") {
        if (utf8::find_invalid(line)) continue;
        // A key whose value is a list on the following lines is skipped; README.source.md has it.
        const bool has_value = !line.empty() && line.back() != ':';
        if (has_value && (line.starts_with("license") || line.starts_with("language:"))) lines.push_back(line);
    }
    return lines;
}

}  // namespace

Json conversion_record(const Model& source, const ConversionPlan& plan, const Provenance& provenance,
                       const ConvertReport& report, const Json& fingerprint,
                       const std::vector<CheckpointWriter::FileRecord>& files) {
    const auto& directory = source.checkpoint.directory();
    const SideFiles side = side_files(source.checkpoint);
    const Plan& cost = report.plan;
    const NopePhase phase = plan.staged() != nullptr ? plan.staged()->nope_phase : NopePhase::zero;
    Json record;
    record["format"] = kFormat;
    record["version"] = version();
    record["base_model"] = base_model(source);
    record["front_matter"] = inherited_front_matter(directory / "README.md");
    record["command"] = provenance.command;
    record["recipe"] = provenance.recipe;
    record["method"] = {{"name", method_of(plan).name},
                        {"layout", plan.layout().name},
                        {"rope", report.selection.strategy},
                        {"rope_dim", report.selection.rope_dim},
                        {"svd", row_of(plan.factorization()).name},
                        {"kv_rank", report.kv_rank},
                        {"nope_phase", kNopePhases.at(static_cast<std::size_t>(phase)).name},
                        {"aligned", plan.refined()}};
    if (!plan.layout().shared_rope_key) record["method"]["reference_config"] = plan.reference_config;
    if (plan.layout().shared_rope_key) {
        record["method"]["latent_norm"] =
            kLatentNorms.at(static_cast<std::size_t>(plan.aligned()->options.latent_norm)).name;
    }
    record["head_dim"] = source.config.head_dim;
    record["parameters"] = {{"original", cost.parameters_original}, {"converted", cost.parameters_converted}};
    record["kv_cache"] = {{"original_numbers_per_token", cost.original_numbers_per_token},
                          {"converted_numbers_per_token", cost.converted_numbers_per_token}};
    record["latent_width"] = cost.latent_width;
    record["retained_energy"] = report.retained_energy;
    if (!report.balance.empty()) record["kv_balance"] = report.balance;
    if (plan.aligned() != nullptr) record["alignment_error"] = report.alignment_error;
    record["measured"] = nullptr;
    record["output_bytes"] = report.output_bytes;
    record["files"] = file_entries(files);
    record["left_out"] = Json::object();
    for (const auto& file : side.left_out) record["left_out"][file.name] = file.why;
    record["fingerprint"] = fingerprint;
    return record;
}

Json file_entries(const std::vector<CheckpointWriter::FileRecord>& files) {
    Json entries = Json::object();
    for (const auto& file : files) {
        Json& entry = entries[file.name] = {{"bytes", file.bytes}};
        if (file.tensors.empty()) {
            entry["xxh128"] = file.hash;
        } else {
            entry["tensors"] = file.tensors;
        }
    }
    return entries;
}

bool holds_files(const fs::path& directory, const Json& entries) {
    for (const auto& [name, file] : entries.items()) {
        std::error_code error;
        if (fs::file_size(directory / name, error) != static_cast<std::uint64_t>(whole_number(file.at("bytes"))) ||
            error)
            return false;
    }
    return true;
}

std::optional<Json> read_record(const fs::path& directory) {
    const fs::path path = directory / kRecordFile;
    std::error_code ignored;
    if (!fs::exists(path, ignored) || !fs::exists(directory / "config.json", ignored)) return std::nullopt;
    Json record;
    try {
        record = read_json_file<Json>(path);
    } catch (const Error& error) {
        if (error.code() != ErrorCode::format) throw;
        return std::nullopt;  // edited by hand, or damaged
    }
    if (!record.is_object() || record.value("format", Json()) != kFormat) return std::nullopt;
    return record;
}

std::optional<ConvertReport> finished_conversion(const fs::path& destination, const Json& fingerprint) {
    return with_errors([&]() -> std::optional<ConvertReport> {
        if (is_unsettled(destination)) return std::nullopt;
        return whole_conversion(destination, fingerprint);
    });
}

std::optional<ConvertReport> whole_conversion(const fs::path& destination, const Json& fingerprint) {
    const auto record = read_record(destination);
    if (!record) return std::nullopt;
    try {
        if (record->at("fingerprint") != fingerprint) return std::nullopt;
        if (!holds_files(destination, record->at("files"))) return std::nullopt;
        const Model model = Model::open(destination);
        if (!model.config.latent) return std::nullopt;
        ConvertReport report;
        const auto& parameters = record->at("parameters");
        const auto& cache = record->at("kv_cache");
        report.plan.parameters_original = whole_number(parameters.at("original"));
        report.plan.parameters_converted = whole_number(parameters.at("converted"));
        report.plan.latent_width = whole_number(record->at("latent_width"));
        report.plan.original_numbers_per_token = whole_number(cache.at("original_numbers_per_token"));
        report.plan.converted_numbers_per_token = whole_number(cache.at("converted_numbers_per_token"));
        report.plan.original_bytes_per_token = 2.0 * static_cast<double>(report.plan.original_numbers_per_token);
        report.plan.converted_bytes_per_token = 2.0 * static_cast<double>(report.plan.converted_numbers_per_token);
        report.selection = model.config.latent->rope;
        report.kv_rank = model.config.latent->kv_rank;
        report.alignment_error = record->value("alignment_error", std::vector<double>());
        report.retained_energy = record->at("retained_energy").get<std::vector<double>>();
        report.balance = record->value("kv_balance", std::vector<double>());
        report.output_bytes = static_cast<std::uint64_t>(whole_number(record->at("output_bytes")));
        report.already_finished = true;
        return report;
    } catch (const nlohmann::json::exception&) {
        return std::nullopt;  // edited by hand
    } catch (const Error&) {
        return std::nullopt;  // damaged; it will be written again
    }
}

Json measurement_at(const fs::path& directory) {
    const auto record = read_record(directory);
    const Json measured = record ? record->value("measured", Json()) : Json();
    const auto has = [&](const char* key) { return measured.contains(key) && measured.at(key).is_number(); };
    return has("nll_original") && has("nll_converted") ? measured : Json();  // or edited by hand
}

void record_measurement(const fs::path& directory, const Json& measured) {
    auto record = read_record(directory);
    if (!record)
        throw Error(ErrorCode::format, directory.string() + ": has no mha2mla.json to record a measurement in");
    (*record)["measured"] = measured;
    write_file_atomically(directory / "README.md", model_card(*record));
    write_file_atomically(directory / kRecordFile, record->dump(2) + "\n");
}

Json fingerprint_at(const fs::path& destination) {
    return with_errors([&]() -> Json {
        if (const auto journal = read_journal(destination)) return journal->fingerprint;
        const auto record = read_record(destination);
        const Json found = record ? record->value("fingerprint", Json()) : Json();
        return found.is_object() ? found : Json();
    });
}

}  // namespace mha2mla
