#include <algorithm>
#include <memory>

#include "commands.hpp"
#include "mha2mla/diagnosis.hpp"
#include "mha2mla/printable.hpp"
#include "options.hpp"
#include "output.hpp"
#include "remedies.hpp"

namespace mha2mla::tool {
namespace {

constexpr int kWouldNotConvert = 1;
constexpr std::size_t kMostLines = 20;  // of one topic; a wrong config.json makes every tensor wrong

struct DoctorFlags {
    std::filesystem::path model, output;
    LatentFlags latent;
    bool deep = false, ignore_unused = false, json = false;
};

std::string text_of(const Finding& finding) { return Error::joined(finding.text, option_advice(finding.remedy)); }

void print_text(const DoctorFlags& flags, const std::vector<Finding>& findings, bool converts) {
    std::string topic;
    std::size_t lines = 0;
    for (const auto& finding : findings) {
        lines = finding.topic == topic ? lines + 1 : 1;
        topic = finding.topic;
        if (lines == kMostLines) std::printf("         %-10s ... and more; --json has all\n", topic.c_str());
        if (lines >= kMostLines) continue;
        std::printf("%-8s %-10s %s\n", std::string(verdict_name(finding.verdict)).c_str(), finding.topic.c_str(),
                    printable(text_of(finding)).c_str());
    }
    std::printf("%s %s\n", printable(flags.model.string()).c_str(), converts ? "would convert" : "would not convert");
}

void print_findings(const DoctorFlags& flags, const std::vector<Finding>& findings, bool converts) {
    if (!flags.json) return print_text(flags, findings, converts);
    nlohmann::ordered_json json;
    json["converts"] = converts;
    json["findings"] = nlohmann::ordered_json::array();
    for (const auto& finding : findings) {
        json["findings"].push_back(
            {{"verdict", verdict_name(finding.verdict)}, {"topic", finding.topic}, {"text", text_of(finding)}});
    }
    print_json(json);
}

void run(const DoctorFlags& flags, Context& context) {
    const DiagnosisOptions options{
        flags.latent.rope_dim, flags.latent.kv_rank, flags.latent.factorization.value_or(Factorization::joint),
        flags.output,          flags.deep,           flags.ignore_unused};
    const auto findings = diagnose(flags.model, options, context.observer);
    const bool converts = std::none_of(findings.begin(), findings.end(),
                                       [](const Finding& finding) { return finding.verdict == Verdict::problem; });
    print_findings(flags, findings, converts);
    flush_stdout();
    if (!converts) throw ExitWith{kWouldNotConvert};
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
    auto flags = std::make_shared<DoctorFlags>();
    auto* command = app.add_subcommand("doctor", "Check whether a checkpoint would convert, without converting it");
    add_checkpoint_option(*command, flags->model);
    add_ignore_unused_option(*command, flags->ignore_unused);
    command->add_flag("--deep", flags->deep, "Also read every weight and look for values that are not finite");
    command
        ->add_option("--output", flags->output,
                     "Directory of the output, for its free space; default: beside the checkpoint")
        ->type_name("DIR");
    add_latent_options(*command, flags->latent);
    add_json_option(*command, flags->json);
    set_footer(*command, "Exit code 0 if it would convert, 1 if not.",
               {{"", "mha2mla doctor ./model"},
                {"read all weights, and look for space on another disk",
                 "mha2mla doctor ./model --deep --output /big/model-mla"}});
    command->callback([flags, &context] { run(*flags, context); });
}

}  // namespace mha2mla::tool
