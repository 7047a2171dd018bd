//! Which commit a branch or tag is, by the `git` of whoever submits, who may be asked for a password.

use std::process::{Command, Stdio};

use crate::exit::{FAILED, Failure, NOT_FOUND};

/// The commit that this name stands for now.
pub(super) fn commit_of(url: &str, name: &str) -> Result<String, Failure> {
    let mut git = Command::new("git");
    git.args(["ls-remote", "--quiet", "--", url]).stderr(Stdio::inherit());
    let output = git.output().map_err(|error| {
        Failure::new(FAILED, format!("cannot run git: {error}"))
            .hint("write the full id of a commit instead of a branch or tag")
    })?;
    if !output.status.success() {
        return Err(Failure::new(FAILED, format!("workdir: git cannot read {url}")));
    }
    find(&String::from_utf8_lossy(&output.stdout), name).ok_or_else(|| {
        Failure::new(NOT_FOUND, format!("workdir: {url} has no branch or tag `{name}`"))
            .hint("a commit is written with all its digits, and has to be pushed")
    })
}

/// The commit of a name in what `git ls-remote` lists, as git itself looks a name up: tags before branches, and of a tag
/// with a message the commit that it is of.
fn find(listed: &str, name: &str) -> Option<String> {
    let wanted = [
        format!("{name}^{{}}"),
        name.to_owned(),
        format!("refs/tags/{name}^{{}}"),
        format!("refs/tags/{name}"),
        format!("refs/heads/{name}"),
    ];
    let named = |wanted: &String| {
        listed.lines().filter_map(|line| line.split_once('\t')).find(|(_, found)| found == wanted)
    };
    wanted.iter().find_map(named).map(|(commit, _)| commit.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_as_git_does_it() {
        let listed = "1\tHEAD\n2\trefs/heads/feature/main\n1\trefs/heads/main\n3\trefs/heads/v1\n4\trefs/tags/v1\n5\trefs/tags/v1^{}\n";
        let found = |name| find(listed, name);
        assert_eq!(found("main").as_deref(), Some("1"));
        assert_eq!(found("HEAD").as_deref(), Some("1"));
        assert_eq!(found("feature/main").as_deref(), Some("2"));
        assert_eq!(found("v1").as_deref(), Some("5"));
        assert_eq!(found("refs/heads/v1").as_deref(), Some("3"));
        assert_eq!(found("mai"), None);
    }
}
