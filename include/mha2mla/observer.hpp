#pragma once
/// How long operations report to their caller. The library itself neither logs nor prints.

#include <cstdint>
#include <string>
#include <string_view>

#include "mha2mla/error.hpp"

namespace mha2mla {

/// Derive from it what you need. Calls come from the thread that called the library.
class Observer {
public:
    Observer() = default;
    virtual ~Observer() = default;
    Observer(const Observer&) = default;
    Observer& operator=(const Observer&) = default;
    Observer(Observer&&) = default;
    Observer& operator=(Observer&&) = default;

    /// `done` of `total` steps of `stage` are finished; 0 when it begins.
    virtual void progress(std::string_view stage, std::int64_t done, std::int64_t total) {
        (void)stage, (void)done, (void)total;
    }
    /// Something the user should know that does not stop the run.
    virtual void warn(const std::string& message) { (void)message; }
    /// Asked between steps; true makes the operation clean up and throw Error{interrupted}.
    [[nodiscard]] virtual bool cancelled() const { return false; }

    /// progress(), or Error{interrupted} if cancelled().
    void step(std::string_view stage, std::int64_t done, std::int64_t total) {
        if (cancelled()) throw Error(ErrorCode::interrupted, "interrupted; nothing was left half-written");
        progress(stage, done, total);
    }
};

}  // namespace mha2mla
