// Post the response to the site (`response_mode=form_post`). Without scripts, the user presses the button.
document.querySelector('form').submit()
