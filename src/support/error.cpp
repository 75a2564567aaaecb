#include "mha2mla/error.hpp"

#include <cerrno>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>

#include "mapping_table.hpp"
#include "mha2mla/printable.hpp"

namespace mha2mla {
namespace {

constexpr std::size_t kLongestMessage = 4000;

Error translated(const std::exception_ptr& exception) {
    constexpr int kNotUtf8 = 316;  // of nlohmann's type_error
    try {
        std::rethrow_exception(exception);
    } catch (const Error& error) {
        return error;
    } catch (const std::bad_alloc&) {
        return {ErrorCode::io, "out of memory", Remedy::fewer_threads};
    } catch (const std::filesystem::filesystem_error& error) {
        return {ErrorCode::io, error.path1().string() + ": " + error.code().message()};
    } catch (const std::system_error& error) {
        if (error.code() == std::errc::resource_unavailable_try_again) {
            return {ErrorCode::io, "no memory for another thread, or too many threads", Remedy::fewer_threads};
        }
        return {ErrorCode::io, "the system refused: " + error.code().message()};
    } catch (const nlohmann::json::exception& error) {
        if (error.id == kNotUtf8) return {ErrorCode::format, "a name or a text is not UTF-8; rename or replace it"};
        return {ErrorCode::format, "a JSON file is not what it should be; download it or make it again"};
    } catch (const std::exception& error) {
        return {ErrorCode::io, std::string("unexpected failure: ") + error.what()};
    } catch (...) {
        return {ErrorCode::io, "unexpected failure"};
    }
}

}  // namespace

struct Error::Cleaned {
    explicit Cleaned(std::string_view message) : text(printable(shortened(message, kLongestMessage))) {}
    std::string text;
};

Error::Error(ErrorCode code, std::string_view message, Remedy remedy) : Error(code, Cleaned(message), remedy) {}

Error::Error(ErrorCode code, const Cleaned& message, Remedy remedy)
    : std::runtime_error(joined(message.text, advice(remedy))),
      code_(code),
      remedy_(remedy),
      length_(message.text.size()) {}

Error as_error(const std::exception_ptr& exception) {
    Error error = translated(exception);
    if (error.code() == ErrorCode::interrupted) return error;
    const auto shortened_file = take_shortened_file();
    if (!shortened_file) return error;
    const Error cause(ErrorCode::io, *shortened_file);
    return error.message().find(cause.message()) == std::string_view::npos ? cause : error;
}

}  // namespace mha2mla
