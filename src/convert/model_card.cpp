#include <algorithm>
#include <cmath>
#include <iomanip>
#include <limits>
#include <sstream>

#include "../support/json_file.hpp"
#include "markdown.hpp"
#include "record.hpp"

namespace mha2mla {
namespace {

using Json = nlohmann::ordered_json;

/// 134515008 -> "134,515,008"
std::string grouped(std::int64_t number) {
    std::string digits = std::to_string(number);
    for (auto i = static_cast<std::ptrdiff_t>(digits.size()) - 3; i > 0; i -= 3) {
        digits.insert(static_cast<std::size_t>(i), ",");
    }
    return digits;
}

std::string text_at(const Json& json, const char* key) { return markdown::text(json.at(key).get<std::string>()); }
std::string code_at(const Json& json, const char* key) { return markdown::code(json.at(key).get<std::string>()); }
std::int64_t number_at(const Json& json, const char* key) { return whole_number(json.at(key)); }

void front_matter(std::ostream& card, const Json& record) {
    card << "---\nbase_model: " << markdown::quoted(record.at("base_model").get<std::string>())
         << "\nbase_model_relation: finetune\nlibrary_name: mha2mla\ntags:\n- mha2mla\n- mla\n- kv-cache\n";
    for (const auto& line : record.at("front_matter")) {
        const std::string own = markdown::licence_or_language(line.get<std::string>());
        if (!own.empty()) card << own << "\n";
    }
    card << "---\n";
}

void table_row(std::ostream& card, const char* what, std::int64_t before, std::int64_t after) {
    const double change = before > 0 ? 100.0 * (static_cast<double>(after) / static_cast<double>(before) - 1) : 0;
    card << "| " << what << " | " << grouped(before) << " | " << grouped(after) << " | " << std::showpos << change
         << std::noshowpos << "% |\n";
}

/// Of numbers of 16 bit.
std::int64_t bytes_of(const Json& numbers) {
    return 2 * std::clamp(whole_number(numbers), std::int64_t{0}, std::numeric_limits<std::int64_t>::max() / 2);
}

void cost_table(std::ostream& card, const Json& record) {
    const auto& parameters = record.at("parameters");
    const auto& cache = record.at("kv_cache");
    card << "| | original | converted | change |\n|---|---:|---:|---:|\n";
    table_row(card, "parameters", whole_number(parameters.at("original")), whole_number(parameters.at("converted")));
    table_row(card, "KV cache, bytes per token at 16 bit", bytes_of(cache.at("original_numbers_per_token")),
              bytes_of(cache.at("converted_numbers_per_token")));
    const Json& measured = record.at("measured");
    if (measured.is_null()) return;
    const double before = measured.at("nll_original"), after = measured.at("nll_converted");
    card << std::setprecision(4) << "| NLL, nats per token | " << before << " | " << after << " | " << std::showpos
         << after - before << std::noshowpos << " |\n| perplexity | " << std::exp(before) << " | " << std::exp(after)
         << " | |\n"
         << std::setprecision(2);
}

void measurement(std::ostream& card, const Json& record) {
    const Json& measured = record.at("measured");
    if (!measured.is_null()) {
        card << "- NLL measured on " << code_at(measured, "data") << ": " << number_at(measured, "tokens")
             << " tokens in " << number_at(measured, "windows") << " windows of " << number_at(measured, "context")
             << "; mean KL divergence from the original " << std::setprecision(4)
             << measured.at("mean_kl").get<double>() << std::setprecision(2) << " nats per token\n";
    }
}

void settings(std::ostream& card, const Json& record) {
    const auto& used = record.at("method");
    if (used.value("layout", std::string(reference_layout().name)) == deepseek_layout().name) {
        card << "- one rotated key of " << number_at(used, "rope_dim") << " numbers and one latent of "
             << number_at(used, "kv_rank") << " numbers for all heads of a layer\n"
             << (used.at("aligned") ? std::string("- each layer's attention, including `o_proj`, was aligned with the "
                                                  "original's output on text\n")
                                    : "- method " + code_at(used, "name") + ", nothing was refined\n");
        return measurement(card, record);
    }
    card << "- RoPE is kept on " << number_at(used, "rope_dim") << " of " << number_at(record, "head_dim")
         << " dimensions of each head, selection " << code_at(used, "rope") << "\n"
         << "- factorisation " << code_at(used, "svd") << ", latent width " << number_at(used, "kv_rank")
         << " per KV head, " << number_at(record, "latent_width") << " per layer\n";
    if (used.at("nope_phase") == "fitted") {
        card << "- the queries of the pairs without RoPE were multiplied by complex numbers, fitted on text, that "
                "approximate the rotation\n";
    }
    if (used.at("aligned")) {
        card << "- the attention weights of each layer, including `o_proj`, were then aligned with the original on "
                "text\n";
    }
    measurement(card, record);
}

void reproduction(std::ostream& card, const Json& record) {
    const auto command = record.at("command").get<std::string>();
    if (!command.empty())
        card << "\nMade by version " << text_at(record, "version") << " with\n\n" << markdown::block("sh", command);
    if (record.at("recipe").is_null()) return;
    card << "\nThe same as a recipe of `mha2mla batch`:\n\n" << markdown::block("json", record.at("recipe").dump(2));
}

void loading(std::ostream& card, const Json& record) {
    card << "\n## Loading\n\n";
    if (record.at("method").value("layout", std::string(reference_layout().name)) == deepseek_layout().name) {
        card << "The checkpoint is a `DeepseekV3ForCausalLM` whose MLPs are dense: `transformers` loads it as it is. "
                "Its "
                "latent\nnorms are identities, see the documentation of the layout. ";
        if (record.at("method").value("latent_norm", "") == kLatentNorms.front().name) {
            card << "Before training, freeze `kv_a_proj_with_mqa` and, where\nthere is one, `q_a_proj`: their rows are "
                    "so "
                    "small that a step of Adam overwrites them; or convert with\nlatent-norm `constant`.";
        }
        card << "\n";
    } else if (record.at("method").value("reference_config", true)) {  // as every record without the key
        card << "The loader of the [MHA2MLA reference implementation](https://github.com/JT-Ushio/MHA2MLA) reads this "
                "directory:\ntensor names, row order and config.json are its own. `transformers` alone takes it for an "
                "original, and\ngives it random keys and values. ";
    } else if (record.at("files").contains("modeling_mha2mla.py")) {
        card << "```python\nfrom transformers import AutoModelForCausalLM\n\n"
                "model = AutoModelForCausalLM.from_pretrained(DIRECTORY, trust_remote_code=True)\n```\n\n"
                "runs `modeling_mha2mla.py` of this directory, whose KV cache holds rotated keys and latents alone. "
                "Without\n`trust_remote_code`, `transformers` refuses it. ";
    }
    card
        << "Without Python,\n"
        << "`mha2mla eval` measures its NLL and perplexity on a text, `mha2mla verify` its distance from the original\n"
           "and `mha2mla generate` continues prompts.\n\n"
        << "## Files\n\n`mha2mla.json` says what was done for machines, with the hash of every file. ";
    if (record.at("files").contains("README.source.md")) card << "`README.source.md` is the original's own card. ";
    const Json& left_out = record.at("left_out");
    if (left_out.empty()) {
        card << "Every other file of the original was copied.\n";
        return;
    }
    card << "Not copied from the original:\n\n";
    for (const auto& [name, why] : left_out.items()) {
        card << "- " << markdown::code(name) << ": " << markdown::text(why.get<std::string>()) << "\n";
    }
}

}  // namespace

std::string model_card(const Json& record) {
    std::ostringstream card;
    card << std::fixed << std::setprecision(2);
    front_matter(card, record);
    card << "# " << text_at(record, "base_model") << " with Multi-head Latent Attention\n\n"
         << "Converted from " << code_at(record, "base_model")
         << " by mha2mla to the architecture of [MHA2MLA](https://arxiv.org/abs/2502.14837) (Ji et al., ACL\n"
         << "2025). The conversion is meant to be followed by fine-tuning, which has not been done.\n\n";
    cost_table(card, record);
    card << "\n";
    settings(card, record);
    reproduction(card, record);
    loading(card, record);
    return card.str();
}

}  // namespace mha2mla
