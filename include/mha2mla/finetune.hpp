#pragma once
/// Training of whole models, original or converted: on next tokens, towards the distributions of a teacher, or both
/// (MHA2MLA, section 4 and appendix C).

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/model.hpp"
#include "mha2mla/observer.hpp"
#include "mha2mla/table.hpp"
#include "mha2mla/token_id.hpp"

namespace mha2mla {

/// Which weights are trained.
enum class TrainedPart : std::uint8_t { all, attention, attention_norms, kv };
struct TrainedPartRow {
    TrainedPart part;
    std::string_view name, what;
};
inline constexpr std::array<TrainedPartRow, 4> kTrainedParts = {{
    {TrainedPart::all, "all", "every weight of the model"},
    {TrainedPart::attention, "attention", "projections of every attention, their biases included"},
    {TrainedPart::attention_norms, "attention-norms",
     "as attention, and every norm of the model (the reference's is_freeze_non_attn)"},
    {TrainedPart::kv, "kv",
     "of every attention what makes keys and values: k_proj and v_proj, or the latent's factors"},
}};
static_assert(in_order(kTrainedParts, &TrainedPartRow::part));

/// How the learning rate falls.
enum class RateDecay : std::uint8_t { one_minus_sqrt, cosine, linear, constant };
struct RateDecayRow {
    RateDecay decay;
    std::string_view name, what;
};
inline constexpr std::array<RateDecayRow, 4> kRateDecays = {{
    {RateDecay::one_minus_sqrt, "1-sqrt", "constant, then 1 - sqrt(progress) (MHA2MLA, appendix C)"},
    {RateDecay::cosine, "cosine", "half a cosine"},
    {RateDecay::linear, "linear", "a straight line"},
    {RateDecay::constant, "constant", "it does not"},
}};
static_assert(in_order(kRateDecays, &RateDecayRow::decay));

/// The learning rate over the steps: a straight line from 0, constant, then decay.
struct RateSchedule {
    RateDecay decay = RateDecay::one_minus_sqrt;
    std::int64_t warmup = 0;       // steps; with any, the first step has rate 0
    std::int64_t decay_start = 0;  // the last step of the full rate
    std::int64_t decay_steps = 0;
    double floor = 0;  // what is left in the end, as a share of the rate

    /// What the rate of a step is multiplied by; steps count from 0.
    [[nodiscard]] double factor(std::int64_t step) const;
};

/// What a step minimises: a mix, each a mean over the tokens that are scored, in nats.
struct LossShares {
    double next_token = 1;  // −log p(next token)
    double teacher = 0;     // KL(teacher ‖ model) of the next-token distributions
    double hidden = 0;      // ‖h − h_teacher‖² / ‖h_teacher‖² of the hidden states behind the last layer
};

struct FinetuneOptions {
    TrainedPart part = TrainedPart::all;
    LossShares loss;
    RateSchedule schedule;
    double rate = 1e-4;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0;
    double clip = 1;            // largest norm of all gradients together; 0: none
    bool bf16_moments = false;  // AdamW's, which halves their memory
    std::int64_t steps = 0;
    std::int64_t batch = 32;          // sequences of a step
    std::int64_t micro_batch = 4;     // sequences whose activations are held at once
    std::int64_t seq_len = 2048;      // tokens of a sequence
    bool keep_activations = false;    // of all layers, instead of computing each layer a second time
    bool shuffle = true;              // sequences, anew for each pass over them
    bool separate_documents = false;  // a token attends to its own document only, by TrainingText::starts
    std::uint64_t seed = 0;
};

/// What a step reports.
struct StepReport {
    std::int64_t step = 0;  // counted from 0
    double rate = 0;
    double loss = 0;                                 // the mix of LossShares
    double next_token = 0, teacher = 0, hidden = 0;  // its parts, 0 where they are not computed
    double gradient_norm = 0;                        // before clipping
    std::int64_t tokens = 0;                         // of the batch
    double seconds = 0;
};

/// Sequences of equal length to train on.
struct TrainingText {
    std::vector<TokenId> ids;  // [sequences * seq_len]
    std::vector<char> starts;  // whether an id begins a document; its prediction is not scored. Empty: none does
    [[nodiscard]] std::int64_t sequences(std::int64_t seq_len) const { return std::ssize(ids) / seq_len; }
};

/// A training run, step by step. Results do not depend on the threads.
class Finetuner {
public:
    /// Takes the weights of a model into memory as float32.
    /// @param teacher null where LossShares needs none. Both must outlive it.
    /// @throws Error{unsupported} naming what cannot be trained, Error{usage} for impossible options.
    Finetuner(const Model& model, const Model* teacher, const TrainingText& text, const FinetuneOptions& options);
    ~Finetuner();
    Finetuner(const Finetuner&) = delete;
    Finetuner& operator=(const Finetuner&) = delete;
    Finetuner(Finetuner&&) = delete;
    Finetuner& operator=(Finetuner&&) = delete;

    /// @throws Error{numeric} if the loss is not finite, Error{interrupted} between micro-batches; the weights are then
    /// those before the step.
    StepReport step(const Observer& observer = Observer());
    [[nodiscard]] std::int64_t steps_done() const;
    /// The model as it is now, with all weights in float32. For evaluation; valid until the next step().
    [[nodiscard]] const Model& model();

    /// Writes weights, moments and place in the text, so that restore() goes on to the same bytes.
    /// @param run which only restore() of the same run knows. @param log kept with them. @throws Error{io}
    void save(const std::filesystem::path& file, std::string_view run = {}, std::string_view log = {}) const;
    /// @return what was kept with them; nothing if there is no such file
    /// @throws Error{format} if it is damaged or of another run; nothing has changed then.
    std::optional<std::string> restore(const std::filesystem::path& file, std::string_view run = {});

private:
    struct State;
    std::unique_ptr<State> state_;
};

/// Documents one after the other, each behind a BOS where the model has one, cut into sequences as make_windows() does:
/// each begins with BOS too. What does not fill a sequence is left out.
[[nodiscard]] TrainingText pack_documents(const ModelConfig& config, std::span<const std::vector<TokenId>> documents,
                                          std::int64_t seq_len);

/// A whole training run: steps, evaluations, checkpoints, and the output in the end.
struct FinetuneRun {
    std::filesystem::path destination;
    std::vector<TokenId> evaluation;  // sequences of seq_len tokens; empty: no evaluation
    std::int64_t eval_every = 0;      // steps; 0: before the first and after the last only
    std::int64_t patience = 0;        // evaluations without a lower NLL, after which the run ends; 0: it does not
    std::int64_t save_every = 0;      // steps between checkpoints; 0: by time alone
    double save_seconds = 600;        // between checkpoints
    std::optional<Dtype> dtype;       // of floating-point tensors; absent: each keeps its own
    bool overwrite = false, resume = false;
    nlohmann::ordered_json data = nullptr;  // what the text was made of, for the record
};
struct FinetuneReport {
    std::int64_t steps = 0, tokens = 0;
    std::optional<double> nll_before, nll_after;  // of the evaluation sequences
    std::int64_t best_step = 0;                   // whose weights were written, counted in finished steps
    std::uint64_t output_bytes = 0;
    bool already_finished = false;
};
/// Whether a directory holds a training run, be it finished or not.
[[nodiscard]] bool holds_training(const std::filesystem::path& directory);
/// Whether a run may begin in a directory, unless it overwrites or goes on. @throws Error{io} if it holds anything.
void check_training_destination(const std::filesystem::path& destination);

/// Trains and writes a checkpoint with the tensors of the model's own, the log and a record of the run (training.jsonl
/// and mha2mla.training.json, see docs/formats.md). Until it is whole, the destination holds the state of the run, by
/// which `resume` goes on to the same bytes.
/// @param report called after each step.
/// @throws as Finetuner, Error{io}, Error{interrupted} with the state saved.
[[nodiscard]] FinetuneReport finetune(const Model& model, const Model* teacher, const TrainingText& text,
                                      const FinetuneOptions& options, const FinetuneRun& run, Observer& observer,
                                      const std::function<void(const StepReport&)>& report);

/// Bytes that a Finetuner takes beside the files that it reads.
struct FinetuneMemory {
    std::uint64_t weights = 0, gradients = 0, moments = 0, hidden_states = 0, activations = 0, batch = 0;
    [[nodiscard]] std::uint64_t total() const {
        return weights + gradients + moments + hidden_states + activations + batch;
    }
};
[[nodiscard]] FinetuneMemory finetune_memory(const Model& model, const FinetuneOptions& options);

}  // namespace mha2mla
