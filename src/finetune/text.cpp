#include "mha2mla/finetune.hpp"

namespace mha2mla {

TrainingText pack_documents(const ModelConfig& config, std::span<const std::vector<TokenId>> documents,
                            std::int64_t seq_len) {
    const auto bos = config.bos_token_id;
    TrainingText text;
    std::vector<TokenId> ids;
    std::vector<char> starts;
    const auto add = [&](TokenId id, bool begins) {
        if (bos && ids.empty()) {
            ids.push_back(static_cast<TokenId>(*bos));
            starts.push_back(0);
            if (begins && id == ids.front()) return;
        }
        ids.push_back(id);
        starts.push_back(static_cast<char>(begins));
        if (std::ssize(ids) < seq_len) return;
        text.ids.insert(text.ids.end(), ids.begin(), ids.end());
        text.starts.insert(text.starts.end(), starts.begin(), starts.end());
        ids.clear();
        starts.clear();
    };
    for (const auto& document : documents) {
        for (std::size_t t = 0; t < document.size(); ++t) {
            if (t == 0 && bos) add(static_cast<TokenId>(*bos), true);
            add(document[t], t == 0 && !bos);
        }
    }
    return text;
}

}  // namespace mha2mla
