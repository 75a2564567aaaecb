#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "../forward/forward.hpp"
#include "../support/hash.hpp"
#include "../train/adamw.hpp"
#include "mha2mla/error.hpp"
#include "mha2mla/safetensors.hpp"
#include "mha2mla/safetensors_writer.hpp"
#include "trained_model.hpp"

namespace mha2mla {
namespace {

const FinetuneOptions& checked(const FinetuneOptions& options, const TrainingText& text) {
    if (options.seq_len < 2 || options.batch < 1 || options.micro_batch < 1 || options.steps < 0) {
        throw Error(ErrorCode::usage, "training needs sequences of 2 tokens or more, and at least one a step");
    }
    if (text.sequences(options.seq_len) < 1) {
        throw Error(ErrorCode::usage, "the text has no whole sequence of " + std::to_string(options.seq_len) +
                                          " tokens to train on; give more text or shorter sequences");
    }
    return options;
}

/// The sequences of a pass over the text, in its own order.
std::vector<std::int64_t> order_of(std::int64_t sequences, std::int64_t pass, const FinetuneOptions& options) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(sequences));
    std::iota(order.begin(), order.end(), 0);
    if (!options.shuffle) return order;
    std::seed_seq seeds{options.seed, static_cast<std::uint64_t>(pass)};
    std::mt19937_64 random(seeds);
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random() % i]);
    return order;
}

AdamWOptions optimiser_of(const FinetuneOptions& options) {
    return {options.beta1, options.beta2, options.eps, options.weight_decay, options.bf16_moments};
}

std::span<const std::byte> bytes_of(std::span<const float> values) { return std::as_bytes(values); }

}  // namespace

struct Finetuner::State {
    State(const Model& source, const Model* by, const TrainingText& from, const FinetuneOptions& asked)
        : teacher(by),
          text(from),
          options(checked(asked, from)),
          model(source, asked.part, asked.seq_len, asked.keep_activations),
          optimiser(model.parameters(), optimiser_of(asked)) {
        check_ids(source, text.ids);
        if (teacher == nullptr) return;
        if (teacher->config.vocab_size != source.config.vocab_size) {
            throw Error(ErrorCode::usage, teacher->checkpoint.directory().string() + ": the teacher's vocab_size is " +
                                              std::to_string(teacher->config.vocab_size) + ", the model's " +
                                              std::to_string(source.config.vocab_size));
        }
        if (options.loss.hidden > 0 && teacher->config.hidden_size != source.config.hidden_size) {
            throw Error(ErrorCode::usage, "hidden states of teacher and model have different sizes");
        }
    }

    /// The ids of the sequences of a step, and what follows them.
    void gather(std::int64_t step) {
        const std::int64_t length = options.seq_len, sequences = text.sequences(length);
        ids.clear();
        next.clear();
        begins.clear();
        for (std::int64_t i = 0; i < options.batch; ++i) {
            const std::int64_t place = step * options.batch + i;
            if (place / sequences != pass || order.empty()) {
                pass = place / sequences;
                order = order_of(sequences, pass, options);
            }
            const std::int64_t first = order[static_cast<std::size_t>(place % sequences)] * length;
            std::int64_t begin = 0;
            for (std::int64_t t = first; t < first + length; ++t) {
                const auto at = static_cast<std::size_t>(t);
                ids.push_back(text.ids[at]);
                if (begins_document(t)) begin = t - first;
                if (options.separate_documents) begins.push_back(begin);
                const bool last = t + 1 == first + length;
                const bool scored = !last && !begins_document(t + 1);
                next.push_back(scored ? text.ids[at + 1] : -1);
            }
        }
    }

    [[nodiscard]] bool begins_document(std::int64_t t) const {
        return !text.starts.empty() && text.starts[static_cast<std::size_t>(t)] != 0;
    }

    /// The teacher's hidden states; where documents are apart, each by itself.
    [[nodiscard]] Matrix taught(const TrainingBatch& batch) const {
        Observer quiet;
        if (batch.begins.empty()) return prefill(*teacher, batch.ids, options.seq_len, quiet);
        Matrix hidden(std::ssize(batch.ids), teacher->config.hidden_size);
        for (std::int64_t t = 0; t < std::ssize(batch.ids);) {
            const auto at = [&](std::int64_t token) { return batch.begins[static_cast<std::size_t>(token)]; };
            std::int64_t end = t + 1;
            while (end % options.seq_len != 0 && at(end) == at(t)) ++end;
            const auto ids = batch.ids.subspan(static_cast<std::size_t>(t), static_cast<std::size_t>(end - t));
            hidden.middleRows(t, end - t) = prefill(*teacher, ids, end - t, quiet);
            t = end;
        }
        return hidden;
    }

    void accumulate(StepReport& report, const Observer& observer) {
        const std::int64_t piece = options.micro_batch * options.seq_len;
        const auto scored = std::count_if(next.begin(), next.end(), [](TokenId id) { return id >= 0; });
        if (scored == 0) {
            throw Error(ErrorCode::usage, "step " + std::to_string(report.step) + ": none of the batch's tokens is " +
                                              "followed by another of its document; give longer documents or more " +
                                              "sequences in a batch");
        }
        for (std::int64_t first = 0; first < std::ssize(ids); first += piece) {
            if (observer.cancelled()) throw Error(ErrorCode::interrupted, "interrupted");
            const auto place = static_cast<std::size_t>(first);
            const auto count = static_cast<std::size_t>(std::min(piece, std::ssize(ids) - first));
            TrainingBatch batch{std::span(ids).subspan(place, count), std::span(next).subspan(place, count), scored};
            if (!begins.empty()) batch.begins = std::span(begins).subspan(place, count);
            Matrix hidden;
            std::optional<Teacher> with;
            if (teacher != nullptr) {
                hidden = taught(batch);
                with.emplace(Teacher{{teacher->config.rules, head_of(*teacher)}, hidden});
            }
            const auto [next_token, divergence, apart] = model.accumulate(batch, with ? &*with : nullptr, options.loss);
            report.next_token += next_token;
            report.teacher += divergence;
            report.hidden += apart;
        }
        report.loss = options.loss.next_token * report.next_token + options.loss.teacher * report.teacher +
                      options.loss.hidden * report.hidden;
    }

    const Model* teacher;
    const TrainingText& text;
    FinetuneOptions options;
    TrainedModel model;
    AdamW optimiser;
    std::vector<std::int64_t> order;
    std::int64_t pass = 0;
    std::vector<TokenId> ids, next;
    std::vector<std::int64_t> begins;  // where documents are apart
};

Finetuner::Finetuner(const Model& model, const Model* teacher, const TrainingText& text, const FinetuneOptions& options)
    : state_(std::make_unique<State>(model, teacher, text, options)) {}

Finetuner::~Finetuner() = default;

StepReport Finetuner::step(const Observer& observer) {
    State& state = *state_;
    const auto begin = std::chrono::steady_clock::now();
    StepReport report;
    report.step = state.optimiser.steps();
    report.rate = state.options.rate * state.options.schedule.factor(report.step);
    report.tokens = state.options.batch * state.options.seq_len;
    state.gather(report.step);
    state.model.clear_gradients();
    state.accumulate(report, observer);
    report.gradient_norm = gradient_norm(state.optimiser.parameters());
    if (!std::isfinite(report.loss) || !std::isfinite(report.gradient_norm)) {
        throw Error(ErrorCode::numeric, "step " + std::to_string(report.step) +
                                            ": loss or gradient is not finite; try a lower learning rate");
    }
    const double most = state.options.clip;
    state.optimiser.step(report.rate, most > 0 ? clip_factor(report.gradient_norm, most) : 1);
    report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return report;
}

std::int64_t Finetuner::steps_done() const { return state_->optimiser.steps(); }
const Model& Finetuner::model() { return state_->model.stored(); }

namespace {

constexpr const char* kWeights = "weights ";
constexpr const char* kMoments = "moments ";
constexpr const char* kLog = "log";
constexpr const char* kSteps = "steps";
constexpr const char* kHash = "xxh128";
constexpr const char* kRun = "run";

/// What a file of the state holds, in its order.
struct Part {
    TensorSpec spec;
    std::span<const std::byte> data;
};

std::string hash_of_state(const std::string& steps, const std::vector<Part>& parts) {
    Hasher hasher;
    hasher.add(steps);
    for (const Part& part : parts) hasher.add(part.data);
    return hasher.hex();
}

std::vector<Part> parts_of(AdamW& optimiser) {
    const auto parameters = optimiser.parameters();
    std::vector<Part> parts;
    for (const Parameter& each : parameters) {
        parts.push_back({{kWeights + each.name, Dtype::f32, {std::ssize(each.value)}}, bytes_of(each.value)});
    }
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const std::span<const std::byte> moments = optimiser.moments(i);
        parts.push_back({{kMoments + parameters[i].name, Dtype::u8, {std::ssize(moments)}}, moments});
    }
    return parts;
}

}  // namespace

void Finetuner::save(const std::filesystem::path& file, std::string_view run, std::string_view log) const {
    for (const Parameter& each : state_->optimiser.parameters()) {
        if (std::ranges::all_of(each.value, [](float value) { return std::isfinite(value); })) continue;
        throw Error(ErrorCode::numeric, "'" + each.name + "' is not finite after step " +
                                            std::to_string(state_->optimiser.steps()) + "; try a lower learning rate");
    }
    std::vector<Part> parts = parts_of(state_->optimiser);
    parts.push_back({{kLog, Dtype::u8, {std::ssize(log)}}, std::as_bytes(std::span(log))});
    std::vector<TensorSpec> specs;
    for (const Part& part : parts) specs.push_back(part.spec);
    const std::string steps = std::to_string(state_->optimiser.steps());
    write_safetensors(file, specs, [&](std::size_t i) { return parts[i].data; },
                      {{kSteps, steps}, {kHash, hash_of_state(steps, parts)}, {kRun, std::string(run)}});
}

std::optional<std::string> Finetuner::restore(const std::filesystem::path& path, std::string_view run) {
    std::error_code ignored;
    if (!std::filesystem::exists(path, ignored)) return std::nullopt;
    State& state = *state_;
    const SafetensorsFile file(path);
    const auto refuse = [&](const std::string& what) {
        return Error(ErrorCode::format, path.string() + ": " + what + "; it is damaged, or of another run",
                     Remedy::start_over);
    };
    const auto metadata = [&](const char* key) {
        const auto found = file.metadata().find(key);
        return found == file.metadata().end() ? std::string() : found->second;
    };
    if (metadata(kRun) != run) throw refuse("it says another run");
    const std::string steps = metadata(kSteps);
    if (steps.empty() || steps.size() > 15 || steps.find_first_not_of("0123456789") != std::string::npos) {
        throw refuse("the number of steps is missing");
    }
    std::vector<Part> parts = parts_of(state.optimiser);
    if (file.tensors().size() != parts.size() + 1) throw refuse("it has other tensors");
    for (Part& part : parts) {
        const TensorView* tensor = file.find(part.spec.name);
        if (tensor == nullptr || tensor->dtype != part.spec.dtype || tensor->data.size() != part.data.size()) {
            throw refuse("tensor '" + part.spec.name + "' is missing or has another size");
        }
        part.data = tensor->data;
    }
    const TensorView* log = file.find(kLog);
    if (log == nullptr || log->dtype != Dtype::u8) throw refuse("the log is missing");
    parts.push_back({{}, log->data});
    if (hash_of_state(steps, parts) != metadata(kHash)) throw refuse("its content is not what was written");
    const auto parameters = state.optimiser.parameters();
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const auto copy = [](std::span<const std::byte> from, std::span<std::byte> to) {
            std::memcpy(to.data(), from.data(), to.size());
        };
        copy(parts[i].data, std::as_writable_bytes(parameters[i].value));
        copy(parts[parameters.size() + i].data, state.optimiser.moments(i));
    }
    state.optimiser.set_steps(std::stoll(steps));
    return std::string(reinterpret_cast<const char*>(log->data.data()), log->data.size());
}

FinetuneMemory finetune_memory(const Model& model, const FinetuneOptions& options) {
    const auto count = [](const TensorView* tensor) { return tensor == nullptr ? 0 : element_count(tensor->shape); };
    const ModelConfig& config = model.config;
    std::uint64_t all = count(model.embed_tokens) + count(model.norm.weight);
    if (model.lm_head != model.embed_tokens) all += count(model.lm_head);
    std::uint64_t trained = options.part == TrainedPart::all ? all : 0;
    for (const LayerView& layer : model.layers) {
        std::uint64_t whole = 0, mlp = 0;
        for (const TensorView* tensor : tensors_of(layer)) whole += count(tensor);
        for (const TensorView* tensor : expert_tensors_of(layer)) whole += count(tensor);
        for (const LinearView& linear : mlp_linears(layer)) mlp += count(linear.weight);
        all += whole;
        trained += options.part == TrainedPart::all ? whole : whole - mlp;
    }
    const auto tokens = static_cast<std::uint64_t>(options.micro_batch * options.seq_len);
    const auto hidden = static_cast<std::uint64_t>(config.hidden_size);
    const auto heads = static_cast<std::uint64_t>(config.num_attention_heads * config.head_dim);
    const auto length = static_cast<std::uint64_t>(options.seq_len);
    const auto layers = static_cast<std::uint64_t>(config.num_hidden_layers);
    std::int64_t width = config.intermediate_size;  // of an MLP or, with what its router says, of a mixture
    for (const LayerRules& rules : config.rules.layers) {
        const MixtureRule& mixture = rules.mlp.mixture;
        width = std::max(width, std::max(mixture.width, mixture.shared_width) + mixture.experts);
    }
    const std::uint64_t layer = 4 * tokens *
                                (12 * hidden + 8 * heads + 6 * static_cast<std::uint64_t>(width) +
                                 2 * static_cast<std::uint64_t>(config.num_attention_heads) * length);
    const std::uint64_t head = 4 * 4 * static_cast<std::uint64_t>(kHeadTokens * config.vocab_size);
    const auto batch = static_cast<std::uint64_t>(options.batch) * length;
    FinetuneMemory memory;
    memory.batch = batch * (2 * sizeof(TokenId) + (options.separate_documents ? sizeof(std::int64_t) : 0));
    memory.weights = 4 * all;
    memory.gradients = 4 * trained;
    memory.moments = (options.bf16_moments ? 4 : 8) * trained;
    memory.hidden_states = options.keep_activations ? 0 : 4 * tokens * hidden * layers;
    memory.activations = layer * (options.keep_activations ? layers : 1) + head;
    return memory;
}

}  // namespace mha2mla
