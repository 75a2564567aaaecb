#include "mha2mla/error.hpp"

#include <cerrno>
#include <filesystem>
#include <new>
#include <nlohmann/json.hpp>
#include <system_error>

namespace mha2mla {

Error as_error(const std::exception_ptr& exception) {
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

}  // namespace mha2mla
