#include "model_card.hpp"

#include <sstream>

namespace mha2mla {

std::string model_card(const Model& source, const ConvertOptions& options, const ConvertReport& report) {
    const auto canonical = std::filesystem::weakly_canonical(source.checkpoint.directory());
    const std::string name = canonical.filename().string();
    const Plan& plan = report.plan;
    std::ostringstream card;
    card.precision(4);
    card << "---\nbase_model: " << name << "\nlibrary_name: mha2mla\ntags: [mha2mla, mla, kv-cache]\n---\n"
         << "# " << name << " with Multi-head Latent Attention\n\n"
         << "Converted from `" << name << "` by mha2mla (MHA2MLA, Ji et al., ACL 2025), without fine-tuning.\n\n"
         << "| | original | converted |\n|---|---|---|\n"
         << "| parameters | " << plan.parameters_original << " | " << plan.parameters_converted << " |\n"
         << "| KV cache, bytes per token at 16 bit | " << static_cast<std::int64_t>(plan.original_bytes_per_token)
         << " | " << static_cast<std::int64_t>(plan.converted_bytes_per_token) << " (" << -100 * plan.reduction()
         << "%) |\n\n"
         << "- RoPE is kept on " << options.rope.rope_dim << " of " << source.config.head_dim
         << " dimensions of each head, selection `" << options.rope.strategy << "`\n"
         << "- factorisation `" << row_of(options.factorization).name << "`, latent width " << options.kv_rank
         << " per KV head\n\n"
         << "Tensor names and the object `mha2mla` in config.json are those of the MHA2MLA reference implementation.\n"
         << "`mha2mla verify` measures the distance from the original. The original's own card is README.source.md.\n";
    return card.str();
}

}  // namespace mha2mla
