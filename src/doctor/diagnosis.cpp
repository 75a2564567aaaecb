#include "mha2mla/diagnosis.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "../convert/output_files.hpp"
#include "../model/find_tensors.hpp"
#include "../model/unused.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/align.hpp"
#include "mha2mla/calibration.hpp"
#include "mha2mla/conversion_request.hpp"
#include "mha2mla/convert.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"
#include "mha2mla/memory.hpp"
#include "mha2mla/plan.hpp"
#include "mha2mla/table.hpp"
#include "mha2mla/tokenizer.hpp"

namespace mha2mla {
namespace {

namespace fs = std::filesystem;

struct VerdictRow {
    Verdict verdict;
    std::string_view name;
};
constexpr std::array<VerdictRow, 3> kVerdicts = {
    {{Verdict::ok, "ok"}, {Verdict::warning, "warning"}, {Verdict::problem, "problem"}}};
static_assert(in_order(kVerdicts, &VerdictRow::verdict));

class Diagnosis {
public:
    Diagnosis(fs::path directory, const DiagnosisOptions& options, Observer& observer)
        : directory_(std::move(directory)), options_(options), observer_(observer) {}

    std::vector<Finding> run() {
        const auto config = read_configuration();
        auto checkpoint = open_weights();
        if (config) check_tokenizer(*config);
        const bool planned = config && check_plan(*config);
        if (config && checkpoint) {
            std::vector<std::string> problems;
            const Model model = find_tensors(*config, std::move(*checkpoint), problems);
            for (auto& problem : problems) add(Verdict::problem, "tensors", std::move(problem));
            if (problems.empty()) add(Verdict::ok, "tensors", "complete, with the shapes that config.json implies");
            for (const std::string& warning : model.warnings) add(Verdict::warning, "tensors", warning);
            const bool needless = add_unused(model);
            if (options_.deep) {
                check_values(model);
            } else {
                add(Verdict::ok, "values", "not checked", Remedy::deep);
            }
            if (problems.empty() && !needless && planned && !config->latent && check_files(model)) check_disk(model);
        }
        return std::move(findings_);
    }

private:
    void add(Verdict verdict, std::string topic, std::string text, Remedy remedy = Remedy::none) {
        findings_.push_back({verdict, std::move(topic), std::move(text), remedy});
    }
    void add(Verdict verdict, std::string topic, const Error& error) {
        add(verdict, std::move(topic), std::string(error.message()), error.remedy());
    }

    /// What would be left out. @return whether that prevents a conversion.
    bool add_unused(const Model& model) {
        const Verdict verdict = options_.ignore_unused ? Verdict::warning : Verdict::problem;
        for (const std::string& name : model.unused) {
            add(verdict, "unused", why_unused(model, name),
                verdict == Verdict::problem ? Remedy::ignore_unused : Remedy::none);
        }
        return verdict == Verdict::problem && !model.unused.empty();
    }

    std::optional<ModelConfig> read_configuration() {
        try {
            ModelConfig config = read_config(directory_ / "config.json");
            const auto bos = read_json_file(directory_ / "config.json").value("bos_token_id", nlohmann::json());
            if (bos.is_number_integer() && !config.bos_token_id) {
                add(Verdict::warning, "config",
                    "bos_token_id " + bos.dump() + " is not in the vocabulary: sequences begin without BOS");
            }
            if (config.latent) {
                add(Verdict::problem, "config",
                    "the checkpoint is already converted, or was MLA from the start; give an original that is not");
            } else {
                add(Verdict::ok, "config",
                    "model_type " + config.model_type + ", " + std::to_string(config.num_hidden_layers) + " layers, " +
                        std::to_string(config.num_attention_heads) + " query and " +
                        std::to_string(config.num_key_value_heads) + " KV heads of " + std::to_string(config.head_dim));
            }
            return config;
        } catch (const Error& error) {
            add(Verdict::problem, "config", error);
            return std::nullopt;
        }
    }

    std::optional<Checkpoint> open_weights() {
        try {
            Checkpoint checkpoint = Checkpoint::open(directory_);
            std::uint64_t bytes = 0;
            for (const auto& file : checkpoint.files()) bytes += file.file().bytes().size();
            add(Verdict::ok, "weights",
                std::to_string(checkpoint.files().size()) + " file(s), " + memory_text(bytes) + ", well-formed");
            return checkpoint;
        } catch (const Error& error) {
            if (!check_shards_one_by_one()) add(Verdict::problem, "weights", error);
            return std::nullopt;
        }
    }

    /// Reports every shard of the index that is missing or damaged. @return whether there is one.
    bool check_shards_one_by_one() {
        std::set<std::string> shards;
        try {
            if (fs::exists(directory_ / "model.safetensors")) return false;
            const auto index = read_json_file(directory_ / "model.safetensors.index.json");
            for (const auto& shard : index.at("weight_map")) shards.insert(shard.get<std::string>());
        } catch (const std::exception&) {
            return false;  // the index itself is damaged
        }
        bool found = false;
        for (const auto& shard : shards) {
            try {
                (void)SafetensorsFile(directory_ / fs::path(shard).filename());
            } catch (const Error& error) {
                add(Verdict::problem, "weights", error);
                found = true;
            }
        }
        return found;
    }

    void check_tokenizer(const ModelConfig& config) {
        const fs::path file = directory_ / "tokenizer.json";
        std::error_code ignored;
        if (!fs::exists(file, ignored)) {
            add(Verdict::warning, "tokenizer", "no tokenizer.json", Remedy::tokenizer);
            return;
        }
        try {
            const std::size_t size = Tokenizer::load(file).vocab_size();
            if (size > static_cast<std::size_t>(config.vocab_size)) {
                add(Verdict::warning, "tokenizer",
                    "tokenizer.json has " + std::to_string(size) + " tokens, but vocab_size is " +
                        std::to_string(config.vocab_size) + ": a text that contains a token beyond it will be refused");
            } else {
                add(Verdict::ok, "tokenizer", std::to_string(size) + " tokens");
            }
        } catch (const Error& error) {
            add(Verdict::warning, "tokenizer", std::string(error.what()) + "; token ids can be used instead of text");
        }
    }

    /// Whether convert() takes a model of this family and these rules.
    bool check_family(const ModelConfig& config) {
        try {
            refuse_conversion(config);
            return true;
        } catch (const Error& error) {
            add(Verdict::problem, "family", error);
            return false;
        }
    }

    bool check_plan(const ModelConfig& config) {
        if (config.latent || !check_family(config)) return false;
        stages_.rope.rope_dim = options_.rope_dim.value_or(default_rope_dim(config));
        stages_.kv_rank = options_.kv_rank.value_or(default_kv_rank(config));
        stages_.factorization = options_.factorization;
        try {
            const Plan plan =
                plan_conversion(config, {stages_.rope.rope_dim, stages_.kv_rank, stages_.factorization, 16});
            const auto numbers = [](std::int64_t count) { return std::to_string(2 * count) + " bytes"; };
            add(Verdict::ok, "plan",
                "rope-dim " + std::to_string(stages_.rope.rope_dim) + ", kv-rank " + std::to_string(stages_.kv_rank) +
                    ": the KV cache changes from " + numbers(plan.original_numbers_per_token) + " to " +
                    numbers(plan.converted_numbers_per_token) + " per token");
        } catch (const Error& error) {
            add(Verdict::problem, "plan", error);
            return false;
        }
        check_memory("converting", default_convert_memory(config));
        check_memory("calibrating",
                     least_calibration_memory(config, 1, std::min<std::int64_t>(2048, config.max_position_embeddings),
                                              CalibrationOptions::Inputs::none));
        check_aligning(config);
        return true;
    }

    /// Checks the memory of the default conversion method. Less calibration text needs less of it.
    void check_aligning(const ModelConfig& config) {
        AlignOptions asked;
        asked.kv_reduction = kDefaultReduction;
        asked.layout = deepseek_obstacle(config).empty() ? &deepseek_layout() : &reference_layout();
        const std::uint64_t needed = align_bytes(config, usual_request(config, asked));
        const std::uint64_t available = available_memory();
        const bool enough = needed <= available;
        add(enough ? Verdict::ok : Verdict::warning, "memory",
            "aligning takes " + memory_text(needed) + ", " + memory_text(available) + " are available",
            enough ? Remedy::none : Remedy::less_text_or_papers_method);
    }

    void check_memory(const std::string& what, std::uint64_t needed) {
        const std::uint64_t available = available_memory();
        const bool enough = needed <= available;
        add(enough ? Verdict::ok : Verdict::problem, "memory",
            what + " takes " + memory_text(needed) + ", " + memory_text(available) + " are available" +
                (enough ? "" : "; free some memory, or use a larger machine"));
    }

    /// Checks that all values are finite; the model may be incomplete.
    void check_values(const Model& model) {
        std::set<const TensorView*> replaced;  // tensors that are factorised, which requires finite values
        for (const auto& layer : model.layers) {
            if (layer.latent()) continue;
            for (const auto* linear :
                 {&layer.original_attention().q, &layer.original_attention().k, &layer.original_attention().v}) {
                replaced.insert(linear->weight);
                replaced.insert(linear->bias);
            }
        }
        std::int64_t done = 0, total = 0, wrong = 0;
        std::string zero;  // names of tensors without any value
        for (const auto& file : model.checkpoint.files()) total += static_cast<std::int64_t>(file.tensors().size());
        for (const auto& file : model.checkpoint.files()) {
            for (const auto& tensor : file.tensors()) {
                observer_.step("scan", done++, total);
                if (!is_compute_dtype(tensor.dtype)) continue;
                const bool weight = tensor.name.ends_with(".weight") && !tensor.data.empty();
                if (weight && std::all_of(tensor.data.begin(), tensor.data.end(),
                                          [](std::byte b) { return b == std::byte(0); })) {
                    zero += (zero.empty() ? "" : ", ") + tensor.name;
                }
                try {
                    check_finite(tensor);
                } catch (const Error& error) {
                    ++wrong;
                    const bool needed = replaced.contains(&tensor);
                    add(needed ? Verdict::problem : Verdict::warning, "values",
                        std::string(error.what()) + (needed ? "" : " (the tensor would be copied unchanged)"));
                }
                model.checkpoint.done_with(tensor);
            }
        }
        check_mapped_files();
        observer_.step("scan", total, total);
        if (!zero.empty())
            add(Verdict::warning, "values", "all values are zero in " + zero + "; was the download whole?");
        if (wrong == 0) add(Verdict::ok, "values", "all weights are finite");
    }

    /// That those beside the weights can be copied.
    bool check_files(const Model& model) {
        try {
            (void)side_files(model.checkpoint);
        } catch (const Error& error) {
            add(Verdict::problem, "files", error);
            return false;
        }
        return true;
    }

    void check_disk(const Model& model) {
        const std::uint64_t needed = planned_output_bytes(model, {stages_});
        // An output that does not exist yet will be on the disk of its nearest existing ancestor.
        fs::path place = fs::absolute(options_.output.empty() ? directory_ / ".." : options_.output).lexically_normal();
        std::error_code error;
        while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
        const auto space = fs::space(place, error);
        if (error) {
            add(Verdict::warning, "disk", place.string() + ": free space is unknown: " + error.message());
            return;
        }
        const bool enough = needed <= space.available;
        add(enough ? Verdict::ok : Verdict::problem, "disk",
            "the output takes " + memory_text(needed) + ", " + place.string() + " has " + memory_text(space.available) +
                " free" + (enough ? "" : "; free some or choose another place"));
    }

    fs::path directory_;
    const DiagnosisOptions& options_;
    Observer& observer_;
    StagedPlan stages_;
    std::vector<Finding> findings_;
};

}  // namespace

std::string_view verdict_name(Verdict verdict) { return kVerdicts.at(static_cast<std::size_t>(verdict)).name; }

std::vector<Finding> diagnose(const fs::path& directory, const DiagnosisOptions& options, Observer& observer) {
    return Diagnosis(directory, options, observer).run();
}

}  // namespace mha2mla
