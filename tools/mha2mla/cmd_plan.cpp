#include <memory>

#include "commands.hpp"
#include "options.hpp"
#include "output.hpp"

namespace mha2mla::tool {
namespace {

struct PlanFlags {
    std::filesystem::path source;
    LatentFlags latent;
    int kv_bits = 16;
    bool json = false;
};

void run(const PlanFlags& flags) {
    std::error_code ignored;
    const bool directory = std::filesystem::is_directory(flags.source, ignored);
    const ModelConfig config = read_config(directory ? flags.source / "config.json" : flags.source);
    const PlanOptions options{flags.latent.rope_dim.value_or(default_rope_dim(config)),
                              flags.latent.kv_rank.value_or(default_kv_rank(config)),
                              flags.latent.factorization.value_or(Factorization::joint), flags.kv_bits};
    const Plan plan = plan_conversion(config, options);
    if (flags.json) {
        auto json = plan_json(plan, flags.kv_bits);
        json["rope_dim"] = options.rope_dim;
        json["kv_rank"] = options.kv_rank;
        json["svd"] = row_of(options.factorization).name;
        print_json(json);
        return;
    }
    print_table({
        {"rope-dim", std::to_string(options.rope_dim) + " of " + std::to_string(config.head_dim) + " per head"},
        {"kv-rank",
         std::to_string(options.kv_rank) + " per KV head, latent width " + std::to_string(plan.latent_width)},
        {"parameters", human_count(plan.parameters_original) + " -> " + human_count(plan.parameters_converted)},
        {"KV cache per token", human_bytes(plan.original_bytes_per_token) + " -> " +
                                   human_bytes(plan.converted_bytes_per_token) + " bytes (16 -> " +
                                   std::to_string(flags.kv_bits) + " bit), " + human_reduction(plan.reduction())},
    });
}

}  // namespace

void add_plan(CLI::App& app, Context&) {
    auto flags = std::make_shared<PlanFlags>();
    auto* command = app.add_subcommand("plan", "What a conversion would cost and save, from config.json alone");
    command->add_option("config", flags->source, "config.json, or a directory that holds one")
        ->required()
        ->type_name("PATH");
    add_latent_options(*command, flags->latent);
    command->add_option("--kv-bits", flags->kv_bits, "Bits of a number in the converted cache; the original's are 16")
        ->check(CLI::Validator(
            [](std::string& text) {
                const bool known = text == "16" || text == "8" || text == "4" || text == "2";
                return known ? std::string() : "'" + text + "' is not one of 16, 8, 4, 2";
            },
            ""))
        ->type_name("{16,8,4,2}")
        ->capture_default_str();
    add_json_option(*command, flags->json);
    set_footer(*command, "",
               {{"the paper's defaults", "mha2mla plan ./SmolLM-135M"},
                {"a smaller latent, cached at 4 bits",
                 "mha2mla plan ./SmolLM-135M/config.json --rope-dim 8 --kv-rank 16 --kv-bits 4"}});
    command->callback([flags] { run(*flags); });
}

}  // namespace mha2mla::tool
