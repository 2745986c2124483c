//! A real nginx instead of a peer.
//!
//! The peer's process turns into nginx (`exec`), so that its number, its signals and its end are
//! nginx's own. What nginx writes goes into the program's own /dev/shm, which ends with it. Its
//! log is on standard output.

use crate::Error;
use spec::Parameters;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A directory that only this program has, and that ends with it.
const PRIVATE: &str = "/dev/shm";

/// Turns this process into an nginx that listens on `address`.
pub(crate) fn become_nginx(address: SocketAddr, parameters: &Parameters) -> Result<(), Error> {
    let program = crate::find("nginx")
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        .map_err(Error::call("looking for nginx"))?;
    let options = Command::new(&program)
        .arg("-V")
        .output()
        .map_err(Error::call(format!("asking {} how it was built", program.display())))?;
    let options = String::from_utf8_lossy(&options.stderr).into_owned();
    let prefix = Path::new(PRIVATE);
    let configuration = prefix.join("nginx.conf");
    fs::write(&configuration, configure(address, parameters, prefix, &options))
        .map_err(Error::call("writing nginx's configuration"))?;
    rustix::stdio::dup2_stderr(std::io::stdout())
        .map_err(|errno| Error::call("joining nginx's log to the reports")(errno.into()))?;
    let error = Command::new(&program)
        .arg0("nginx")
        .arg("-p")
        .arg(prefix)
        .arg("-c")
        .arg(&configuration)
        .current_dir("/")
        .exec();
    Err(Error::call(format!("starting {}", program.display()))(error))
}

/// Nothing but what the experiment needs: one process that does not change its user, since there
/// may be no other to change to; and one answer, the path that was asked for.
fn configure(address: SocketAddr, parameters: &Parameters, prefix: &Path, options: &str) -> String {
    let prefix = prefix.display();
    // What a module has not been built for is no directive.
    let modules = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let mut temporary = String::new();
    for name in modules {
        if !options.contains(&format!("--without-http_{name}_module")) {
            temporary += &format!("    {name}_temp_path {prefix}/{name};\n");
        }
    }
    let timeout = parameters.nginx.keepalive_timeout.map_or_else(String::new, |timeout| {
        format!("        keepalive_timeout {}ms;\n", timeout.as_millis())
    });
    format!(
        "daemon off;\n\
         master_process off;\n\
         user root root;\n\
         pid {prefix}/pid;\n\
         error_log stderr notice;\n\
         events {{ worker_connections 64; }}\n\
         http {{\n    access_log off;\n{temporary}    server {{\n        listen {address};\n\
         {timeout}        location / {{ return 200 \"$uri\"; }}\n    }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_has_what_this_build_knows() {
        let mut parameters = Parameters::default();
        let address = "198.18.0.2:7".parse().unwrap();
        let make = |parameters: &Parameters, options| {
            configure(address, parameters, "/p".as_ref(), options)
        };
        let text = make(&parameters, "--without-http_uwsgi_module --with-threads");
        assert!(text.contains("listen 198.18.0.2:7;"), "{text}");
        assert!(text.contains("scgi_temp_path /p/scgi;"), "{text}");
        assert!(!text.contains("uwsgi_temp_path") && !text.contains("keepalive_timeout"), "{text}");
        parameters.nginx.keepalive_timeout = Some(std::time::Duration::from_millis(2500));
        let text = make(&parameters, "");
        assert!(text.contains("uwsgi_temp_path") && text.contains("keepalive_timeout 2500ms;"));
    }
}
