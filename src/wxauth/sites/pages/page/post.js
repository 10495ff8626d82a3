// Post the response to the site (`response_mode=form_post`). Without scripts, the user presses the form's button.
document.querySelector('form').submit()
