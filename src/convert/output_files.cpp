#include "output_files.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "../checkpoint/config_json.hpp"
#include "../checkpoint/destination.hpp"
#include "../support/json_file.hpp"
#include "mha2mla/error.hpp"
#include "record.hpp"

namespace mha2mla {
namespace fs = std::filesystem;
namespace {

struct LeftOutRow {
    std::string_view suffix, why;
};
constexpr std::string_view kChatTemplates = "additional_chat_templates";  // a folder of named ones
constexpr std::string_view kOtherWeights = "the unconverted weights in another format";
constexpr std::array<LeftOutRow, 12> kLeftOut = {{
    {".index.json", kOtherWeights},
    {".safetensors", "weights that are not part of the checkpoint that was converted"},
    {".bin", kOtherWeights},
    {".pt", kOtherWeights},
    {".pth", kOtherWeights},
    {".gguf", kOtherWeights},
    {".h5", kOtherWeights},
    {".msgpack", kOtherWeights},
    {".onnx", kOtherWeights},
    {".ckpt", kOtherWeights},
    {".npz", kOtherWeights},
    {".incomplete", "unfinished"},
}};

bool is_loader_file(const std::string& name) {
    for (const LatentLayout& layout : latent_layouts()) {
        if (layout.loader_files == nullptr) continue;
        for (const LoaderFile& file : layout.loader_files()) {
            if (file.name == name) return true;
        }
    }
    return false;
}

bool is_record(const std::string& name) {
    return name == kTrainingLog || std::ranges::find(kRecordFiles, name) != kRecordFiles.end();
}

/// Of the files that belong to a checkpoint.
constexpr std::array<std::string_view, 14> kOwnFiles = {{
    "LICENSE",
    "README.md",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
}};

bool is_within(const fs::path& file, const fs::path& directory) {
    return std::mismatch(directory.begin(), directory.end(), file.begin(), file.end()).first == directory.end();
}

/// Whether a link leads to what belongs to the checkpoint: into its directory, into the store of the hub's cache, or to
/// a file that another checkpoint has under the same name. Others may lead to anything, and the output is published.
bool may_follow(const fs::path& link) {
    std::error_code failure;
    const fs::path file = fs::canonical(link, failure);
    const fs::path directory = fs::canonical(link.parent_path(), failure);
    if (failure) return false;
    if (is_within(file, directory)) return true;
    for (fs::path above = directory; above.has_relative_path(); above = above.parent_path()) {
        if (above.parent_path().filename() != "snapshots") continue;
        if (is_within(file, above.parent_path().parent_path() / "blobs")) return true;
    }
    const std::string name = link.filename().string();
    return file.filename() == name && std::ranges::find(kOwnFiles, name) != kOwnFiles.end();
}

/// Why a file is not copied for what it is; empty for one that may be.
std::string_view why_not_followed(const fs::directory_entry& entry) {
    std::error_code error;
    if (!entry.is_regular_file(error)) return "not a file";
    return entry.is_symlink(error) && !may_follow(entry.path()) ? "a link to a file of something else" : "";
}

/// Why a file is not copied for its name; empty for one that may be.
std::string_view why_left_out(const std::string& name) {
    if (name.starts_with(".")) return "hidden";
    if (is_record(name) || is_unfinished_name(name) || is_loader_file(name)) return "of another conversion";
    for (const auto& row : kLeftOut) {
        if (name.ends_with(row.suffix)) return row.why;
    }
    return "";
}

fs::directory_iterator entries_of(const fs::path& directory) {
    std::error_code error;
    fs::directory_iterator entries(directory, error);
    if (!error) return entries;
    throw Error(ErrorCode::io,
                directory.string() + ": cannot list the files, some of which a conversion copies: " + error.message());
}

std::string config_text(const Model& source, const ConversionPlan& plan, const OutputForm& form,
                        const ConvertReport& report, const std::string& rank_file) {
    auto config = read_json_file<nlohmann::ordered_json>(source.checkpoint.directory() / "config.json");
    if (plan.dtype) {
        config[config.contains("dtype") ? "dtype" : "torch_dtype"] = config_dtype(*plan.dtype);
    }
    if (source.lm_head != source.embed_tokens) config["tie_word_embeddings"] = false;  // whatever was said of it
    if (form.residual_scale != 1) config["rms_norm_eps"] = kLatentNormEps;
    LatentConfig latent{report.selection,      plan.factorization(), report.kv_rank,
                        form.shape.query_rank, form.shape.layout,    report.frequencies};
    latent.norms_by_part = !form.norm_order.empty();
    latent.value_heads = form.shape.value_heads;
    return latent.layout->config_text(
        config, latent,
        {rank_file, plan.rope(0).uniform_start, plan.aligned() != nullptr, form.biased, plan.reference_config});
}

}  // namespace

SideFiles side_files(const Checkpoint& source) {
    SideFiles files;
    const auto add = [&](const std::string& name, std::string_view for_what_it_is, std::string_view for_its_name) {
        const std::string_view why = for_what_it_is.empty() ? for_its_name : for_what_it_is;
        if (why.empty()) {
            files.copied.push_back(name);
        } else {
            files.left_out.push_back({name, std::string(why), for_what_it_is.empty()});
        }
    };
    // What is converted.
    std::set<std::string> converted = {"config.json", "model.safetensors.index.json"};
    for (const auto& file : source.files()) converted.insert(file.path().filename().string());
    for (const auto& entry : entries_of(source.directory())) {
        const std::string name = entry.path().filename().string();
        if (converted.contains(name)) continue;
        std::error_code unknown;
        if (name != kChatTemplates || !entry.is_directory(unknown)) {
            add(name, why_not_followed(entry), why_left_out(name));
            continue;
        }
        for (const auto& inner : entries_of(entry.path())) {
            std::error_code error;
            const bool is_template = inner.is_regular_file(error) && inner.path().extension() == ".jinja" &&
                                     (!inner.is_symlink(error) || may_follow(inner.path()));
            add(name + "/" + inner.path().filename().string(), is_template ? "" : "not a chat template", "");
        }
    }
    std::sort(files.copied.begin(), files.copied.end());
    std::sort(files.left_out.begin(), files.left_out.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return files;
}

std::string SideFiles::output_name(const std::string& name) const {
    if (name != "README.md") return name;
    std::string card = "README.source.md";
    for (int i = 2; std::ranges::binary_search(copied, card); ++i) card = "README.source-" + std::to_string(i) + ".md";
    return card;
}

void check_output_names(const Checkpoint& source, const fs::path& destination) {
    const SideFiles side = side_files(source);
    std::vector<std::string> names = {"config.json", "README.md", std::string(kRecordFile)};
    for (const auto& name : side.copied) names.push_back(side.output_name(name));
    for (const auto& name : names) {
        std::error_code ignored;
        if (!fs::is_directory(fs::symlink_status(destination / name, ignored))) continue;
        throw Error(ErrorCode::io,
                    (destination / name).string() + ": is a directory where a file is to be written; move it away");
    }
}

void add_side_files(CheckpointWriter& writer, const Model& source, const ConversionPlan& plan, const OutputForm& form,
                    const ConvertReport& report, const PairRanks* ranks) {
    std::string rank_file;
    const bool selects_pairs = !form.shape.layout->shared_rope_key;
    if (selects_pairs &&
        !reference_selects_the_same(report.selection, source.config, plan.rope(report.selection.rope_dim))) {
        const bool two_norm = report.selection.strategy == "2-norm" && ranks != nullptr;
        rank_file = two_norm ? "2_norm_rank.pth" : "rope_rank.pth";
        writer.add_file(rank_file,
                        rank_file_bytes(two_norm ? *ranks : ranks_selecting(report.selection, source.config)));
    }
    const auto& directory = source.checkpoint.directory();
    const SideFiles side = side_files(source.checkpoint);
    for (const auto& name : side.copied) writer.copy_file(side.output_name(name), directory / name);
    const LatentLayout& layout = *form.shape.layout;
    const auto config = read_json_file<nlohmann::ordered_json>(directory / "config.json");
    if (layout.loader_files != nullptr && !plan.reference_config && layout.has_classes(config)) {
        for (const LoaderFile& file : layout.loader_files()) writer.add_file(file.name, file.text);
    }
    writer.add_file("config.json", config_text(source, plan, form, report, rank_file));
}

}  // namespace mha2mla
