#pragma once
#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "mha2mla/error.hpp"
#include "mha2mla/mapped_file.hpp"

namespace mha2mla {

/// The lines of a JSON Lines file, blank ones left out. Each is parsed when it is asked for.
class JsonLines {
public:
    /// @throws Error{io}
    explicit JsonLines(const std::filesystem::path& file);

    [[nodiscard]] std::size_t size() const { return starts_.size(); }
    [[nodiscard]] std::string_view text(std::size_t line) const;
    /// Calls interpret(object), which may throw Error or an exception of the JSON library. @param needs what a line
    /// must have, for messages. @throws Error{format} naming file and line if it is no object or `interpret` throws.
    template <typename Read>
    auto read(std::size_t line, std::string_view needs, const Read& interpret) const {
        try {
            return interpret(object(line, needs));
        } catch (const nlohmann::json::exception& error) {
            throw at(line, message_of(error) + std::string(needs));
        } catch (const Error& error) {
            throw error.with_prefix(place(line));
        }
    }
    [[nodiscard]] Error at(std::size_t line, const std::string& message) const;

private:
    [[nodiscard]] std::string_view content() const;
    [[nodiscard]] nlohmann::json object(std::size_t line, std::string_view needs) const;
    [[nodiscard]] std::string place(std::size_t line) const;
    [[nodiscard]] static std::string message_of(const nlohmann::json::exception& error);

    std::string name_;
    MappedFile file_;
    std::vector<std::size_t> starts_;  // of each line, in bytes
};

}  // namespace mha2mla
